"""How often a trained network is wrong, as far as its checkpoint or the folders around it tell."""

import json
from pathlib import Path
from typing import NamedTuple

import yaml

from capsnet import checkpoint
from capsnet.files import file_md5

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
    """The test error if it is recorded, else the validation error of the training, else None."""
    description = checkpoint.describe(path)
    test_error = description.get("test_error")
    if test_error is None:
        test_error = recorded_error(path)
    if test_error is not None:
        return KnownError(test_error, "test")
    validation_error = description.get("validation_error")
    return None if validation_error is None else KnownError(validation_error, "validation")


def recorded_error(path: str | Path) -> float | None:
    """The test error in percent that stage `evaluate` recorded for the checkpoint at `path`.

    dvc.lock names metrics.json and the checkpoint that was evaluated. A served model has
    metrics.json beside the folder of its checkpoint.
    """
    path = Path(path).absolute()  # not resolved: DVC may link the file to its cache
    root, name = path.parent.parent, path.stem
    try:
        metrics = root / "metrics.json"
        if not metrics.exists():
            lock = yaml.load((root / "dvc.lock").read_bytes(), yaml.CSafeLoader)
            stage = lock["stages"][f"evaluate@{name}"]
            tested = {dep["path"]: dep["md5"] for dep in stage["deps"]}
            if tested[f"{path.parent.name}/{path.name}"] != file_md5(path):
                return None
            [metrics] = (
                root / out["path"] for out in stage["outs"] if "metrics.json" in out["path"]
            )
        [runs] = json.loads(metrics.read_bytes()).values()  # budget -> run -> numbers
        return float(runs[name]["error"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):  # no record, or not ours
        return None
