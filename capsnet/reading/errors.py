"""How often a trained network is wrong, by its checkpoint."""

from pathlib import Path
from typing import NamedTuple

from capsnet import checkpoint

OFTEN = 20.0  # percent: a network that is wrong more often than this says so with each answer


class KnownError(NamedTuple):
    """Share of wrong answers in percent; `source`: on "test" or on "validation" examples."""

    percent: float
    source: str

    def __str__(self) -> str:
        return f"{self.source} error {self.percent:.2f} %"

    def warning(self, num_digits: int, noun: str = "digit") -> str:
        """What to say with each answer of this network; nothing if it is seldom wrong."""
        if self.percent <= OFTEN:
            return ""
        examples = f"{noun}s" if num_digits == 1 else "pairs"
        return f"this network is wrong on {self.percent:.0f} % of its {self.source} {examples}"


def known_error(path: str | Path) -> KnownError | None:
    """The error in the checkpoint: on the test, if it is published with one, else on validation."""
    description = checkpoint.describe(path)
    for source in ("test", "validation"):
        if (percent := description.get(f"{source}_error")) is not None:
            return KnownError(percent, source)
    return None
