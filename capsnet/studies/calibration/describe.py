"""Whether lengths are probabilities, in a sentence."""

from capsnet.config import RunConfig
from capsnet.studies.calibration.gap import calibration_error
from capsnet.studies.results import Results, Section


def calibration(results: Results, config: RunConfig) -> str:
    bins, counts = results.tables["calibration"], results.tables["counts"]
    error, confidence = calibration_error(bins)
    side = "longer" if confidence == "overconfident" else "shorter"
    right = counts[counts["threshold"] == 0.5].set_index("shown")["right"]
    return (
        f"The paper calls lengths probabilities. As such they are "
        f"{error:.1f} points off on average, mostly {side} than the digits are right. "
        f"Counting the capsules longer than 0.5 (midway between the margins) finds one digit in "
        f"{right['one digit']:.0f} % of images with one and two in {right['two digits']:.0f} % of "
        f"those with two, on an empty image {'nothing' if right['nothing'] else 'a digit'}, and "
        f"takes shuffled ink for no digit in {right['a digit in shuffled tiles']:.0f} %."
    )


SECTION = Section("Are lengths probabilities?", {"figures/calibration.png": calibration})
