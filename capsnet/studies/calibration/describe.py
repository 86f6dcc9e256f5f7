"""Whether lengths are probabilities, in sentences."""

from capsnet.config import RunConfig
from capsnet.nn.registry import NETWORKS
from capsnet.studies.calibration.gap import calibration_error
from capsnet.studies.results import Results, Section


def calibration(results: Results, config: RunConfig) -> str:
    bins, counts = results.tables["calibration"], results.tables["counts"]
    error, confidence = calibration_error(bins)
    right = counts[counts["threshold"] == 0.5].set_index("shown")["right"]
    score, counted = "The paper uses lengths as probabilities. Their", "capsules longer"
    if not NETWORKS[config.network].gives_lengths:
        score, counted = "Scores are converted to probabilities. Their", "classes more probable"
    return (
        f"{score} expected calibration error is {error:.1f} points, mostly {confidence}. Counting "
        f"the {counted} than 0.5 gives the right number of digits for "
        f"{right['one digit']:.0f} % of images with one digit and {right['two digits']:.0f} % of "
        f"images with two. It finds {'no' if right['nothing'] else 'a'} digit in an empty image, "
        f"and none in {right['a digit in shuffled tiles']:.0f} % of digits with shuffled tiles."
    )


SECTION = Section("Are lengths probabilities?", (calibration,))
