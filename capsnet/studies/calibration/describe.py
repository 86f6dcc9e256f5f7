"""Whether lengths are probabilities, in sentences."""

from capsnet.config import RunConfig
from capsnet.studies.calibration.gap import calibration_error
from capsnet.studies.results import Results, Section


def calibration(results: Results, config: RunConfig) -> str:
    bins, counts = results.tables["calibration"], results.tables["counts"]
    error, confidence = calibration_error(bins)
    right = counts[counts["threshold"] == 0.5].set_index("shown")["right"]
    return (
        "The paper uses lengths as probabilities. Their expected calibration error is "
        f"{error:.1f} points, mostly {confidence}. Counting the capsules longer than 0.5, "
        "which is midway between the margins, gives the right number of digits for "
        f"{right['one digit']:.0f} % of images with one digit and {right['two digits']:.0f} % of "
        f"images with two. It finds {'no' if right['nothing'] else 'a'} digit in an empty image, "
        f"and none in {right['a digit in shuffled tiles']:.0f} % of digits with shuffled tiles."
    )


SECTION = Section("Are lengths probabilities?", {"figures/calibration.png": calibration})
