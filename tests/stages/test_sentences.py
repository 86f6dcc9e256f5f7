"""The report's sentences, on tables made up so that the words are known."""

import pandas as pd
import pytest

from capsnet.config import Run, load, resolve
from capsnet.studies.calibration.describe import calibration
from capsnet.studies.errors.describe import confusion, overlap
from capsnet.studies.perturbation.describe import two_sigma_overview
from capsnet.studies.reconstructions.describe import reconstructions
from capsnet.studies.results import FEW, Results
from capsnet.studies.routing.describe import routing
from capsnet.studies.training.describe import LONG, training

HEADLINE = {"error": 10.0, "loss": 0.25, "minutes": 3.0}


def of(task: str = "multimnist", run: dict | None = None, **tables: pd.DataFrame):
    """Results with these tables, and the configuration of the run that gave them."""
    runs = {"one": Run(task=task, network="capsnet", **(run or {}))}
    params = load().model_copy(update={"runs": runs})
    return Results("one", HEADLINE, tables), resolve(params, "one")


def routing_table(**by_measure: list[float]) -> pd.DataFrame:
    """These values by iteration; every other measure of the study is 1."""
    names = (
        "contributed_coupling",
        "largest_coupling",
        "votes",
        "positive_share",
        "length",
        "error",
    )
    names += ("logit_change", "logit_change_change", "coupling_change")
    count = len(next(iter(by_measure.values())))
    parts = [
        pd.DataFrame({"iteration": range(1, count + 1), "measure": name, "value": values})
        for name in names
        for values in [by_measure.get(name, [1.0] * count)]
    ]
    return pd.concat(parts).assign(low=0.5, high=1.5, examples=400)


def test_routing_is_told_by_what_each_vote_adds_and_stops_at_what_was_trained():
    table = routing_table(
        contributed_coupling=[10.0, 16.0, 30.0, 99.0],
        positive_share=[100.0, 105.0, 110.0, 115.0],
        error=[12.0, 11.0, 10.5, 20.0],
        logit_change=[0.1, 0.2, 0.3, 0.01],
        logit_change_change=[float("nan"), 0.2, 0.1, 0.05],
        coupling_change=[float("nan"), 1.0, 2.0, 0.5],
    )
    words = routing(*of(run={"iterations": 3}, routing=table))
    assert "goes from 10 to 30 % over the 3 iterations" in words
    assert "the error is 10.50 % (0.5 to 1.5), stopped earlier 12.00 or 11.00 %" in words
    assert "with 4 iterations the same weights have an error of 20.00 %" in words
    assert "add 110 % of it, the others, which so weigh less than nothing, take 10 % away" in words
    assert "that change grows from 0.1 to 0.3, what it differs by from the one before" in words
    assert "shrinks from 0.2 to 0.1, the change of a coupling grows from 1 to 2 points" in words
    assert "which of these it shows is not known" in words  # neither like nor unlike the paper


def test_one_pass_is_not_told_as_routing():
    table = routing_table(votes=[12.0, 9.0], length=[0.6, 0.7], error=[11.0, 13.0])
    words = routing(*of(run={"iterations": 1}, routing=table))
    assert words.startswith("One pass, so every coupling is even; 12 votes carry 80 %")
    assert "is 0.60, the error 11.00 %; with 2 iterations" in words and "goes from" not in words


@pytest.mark.parametrize(
    ("last", "examples", "words"),
    [
        (30.0, FEW, "0 to 20 % of the smaller digit's. The error grows with it: 20.0 % at"),
        (15.0, FEW, "The error does not grow with it: 20.0 %"),
        (30.0, FEW - 1, "There are too few pairs to say"),
    ],
)
def test_ranges_of_few_pairs_are_not_spoken_of(last, examples, words):
    errors = {"group": "overlap", "name": ["0 to 20 %", "20 to 40 %"], "error": [20.0, last]}
    errors = pd.DataFrame(errors | {"examples": [900, examples]})
    apart = pd.DataFrame({"measure": ["box_overlap"], "name": ["all"], "value": [72.0]})
    found = overlap(*of(errors=errors, separation=apart))
    assert "bounding boxes 72 % is covered" in found and words in found


def test_reconstructions_stand_beside_what_needs_no_network():
    table = pd.DataFrame(
        [
            ("squared_error", "network", 39.4),
            ("squared_error", "nothing", 84.6),
            ("squared_error", "half of the image", 34.6),
            ("separation_accuracy", "all", 82.0),
            ("class_means_accuracy", "all", 70.0),
        ],
        columns=["measure", "name", "value"],
    ).assign(low=81.0, high=83.0, examples=1000)
    words = reconstructions(*of(separation=table))
    assert "the brighter one in 82.0 % (81.0 to 83.0); a coin reaches 50 %" in words
    assert "the mean picture of each class 70.0 %" in words
    assert words.endswith("need no network: nothing 84.6, half of the image 34.6.")
    assert "39.4 squared pixels off per digit on average of 1,000 test examples" in words
    assert "coin" not in reconstructions(*of("mnist", separation=table))


@pytest.mark.parametrize(
    ("deviations", "words"), [(8, "most of Figure 4"), (3, "part of"), (2, "little of")]
)
def test_how_much_of_figure_4_is_beyond_real_digits(deviations, words):
    params = load()
    table = {"digit": [0, 0], "dimension": [0, 1], "name": ["none", "moves right 1 px"]}
    table |= {"limit": 2 * params.perturb.range / deviations, "measure": "slant", "unit": "degrees"}
    table |= {"change": 1.0, "change_percent": float("nan"), "effect": 1.0, "significant": True}
    two_sigma = pd.DataFrame(table)
    found = two_sigma_overview(*of(two_sigma=two_sigma, perturbation=two_sigma))
    assert f"is {deviations:.1f} of them: {words}" in found
    assert "1 of 2 dimensions change a measure visibly" in found
    assert found.endswith("of those there are 1.")
    alone = two_sigma.assign(limit=float("nan"))
    assert "not known" in two_sigma_overview(*of(two_sigma=alone, perturbation=two_sigma))


def test_lengths_as_probabilities_are_weighed_by_how_often_they_come():
    bins = {"group": "predicted digits", "length": [0.5, 0.9], "there": [90.0, 85.0]}
    bins = pd.DataFrame(bins | {"examples": [900, 100]})
    shown = ["nothing", "one digit", "two digits", "a digit in shuffled tiles"]
    counts = pd.DataFrame({"shown": shown, "threshold": 0.5, "right": [1, 99, 80, 40]})
    words = calibration(*of(calibration=bins, counts=counts))
    assert "36.5 points off on average, mostly shorter than" in words  # 0.9 * 40 + 0.1 * 5
    assert "one digit in 99 % of images with one and two in 80 %" in words
    assert "on an empty image nothing, and takes shuffled ink for no digit in 40 %" in words


def test_a_short_training_is_called_one():
    curve = {"examples": [1000, 2000], "loss": [0.5, 0.25]}
    curve = pd.DataFrame(curve | {"validation_error": [20.0, 12.0], "training_error": [18.0, 11.0]})
    words = training(*of(training=curve))
    assert "in the last interval still by 50 %. Of the validation examples 12.00 % are" in words
    assert "shown in the same way 11.00 % (the last points are of all" in words
    assert words.endswith("The paper's training set has 60M pairs.")
    assert training(*of("mnist", training=curve)).endswith("of 38.4M digits.")
    curve["examples"] = [1000, LONG]
    curve["validation_error"] = float("nan")
    assert training(*of(training=curve)).endswith("still by 50 %.")


def test_no_mistake_is_not_made_one():
    table = {"label": [0, 0, 1, 1], "prediction": [0, 1, 0, 1]}
    right = pd.DataFrame(table | {"count": [5, 0, 0, 5]})
    assert confusion(*of("mnist", confusion=right)) == "No digit was taken for another."
    wrong = pd.DataFrame(table | {"count": [5, 2, 3, 5]})
    words = confusion(*of(confusion=wrong))
    assert words.startswith("Most often a 1 is taken for a 0 (3 times).") and "guess" in words
