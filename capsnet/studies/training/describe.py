"""A training in a sentence."""

from capsnet.config import RunConfig
from capsnet.studies.results import Results, Section

LONG = 10_000_000  # images shown: the authors' own trainings are of this order and longer
LENGTHS = {  # of the authors, by the digits in an image
    1: "The authors' README has a training of 38.4M digits.",
    2: "The paper's training set has 60M pairs.",
}


def training(results: Results, config: RunConfig) -> str:
    curve, trained = results.tables["training"], results.headline
    sentence = (
        f"The loss falls to {trained['loss']:.3f} in {trained['minutes']:.1f} minutes and "
        f"{curve['examples'].iloc[-1]:,} examples"
    )
    if len(curve) > 1:
        fall = 1 - curve["loss"].iloc[-1] / curve["loss"].iloc[-2]
        sentence += f", in the last interval still by {100 * fall:.0f} %"
    last = curve.iloc[-1]
    if last["validation_error"] == last["validation_error"]:  # not NaN
        sentence += (
            f". Of the validation examples {last['validation_error']:.2f} % are wrong at the end, "
            f"of training digits shown in the same way {last['training_error']:.2f} % (the last "
            "points are of all validation digits and as many others, the earlier ones of fewer)"
        )
    longer = last["examples"] < LONG
    return f"{sentence}." + (f" {LENGTHS[config.task.num_digits]}" if longer else "")


SECTION = Section("Training", {"figures/training.png": training})
