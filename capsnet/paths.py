"""Where the files of a run are, relative to the repository root; dvc.yaml declares the same."""

import os
from pathlib import Path
from typing import NamedTuple

STUDY_PARAMS = Path("study/params.yaml")  # its sections replace those of params.yaml
STUDY_REPORTS = Path("reports/study")
PRETRAINED = Path(__file__).parents[1] / "pretrained"


def from_root(path: str | Path) -> Path:
    """A path that the user gives, relative to the repository, which DVC_ROOT names where
    `dvc exp run --temp` or the queue runs in a copy.
    """
    return Path(os.environ.get("DVC_ROOT", "")) / Path(path).expanduser()


class RunPaths(NamedTuple):
    digits: Path  # folder of the four archives
    model: Path  # checkpoint
    explorer: Path  # web page
    reports: Path  # folder of tables and figures

    @property
    def curve(self) -> Path:
        """The training curve."""
        return self.reports / "training.csv"


def digits_folder(*, study: bool = False) -> Path:
    return Path("study/data/digits" if study else "data/digits")


def reports_folder(budget: str, *, study: bool = False) -> Path:
    """The folder of a report; each budget has its own, so that none overwrites another."""
    return STUDY_REPORTS if study else Path("reports") / budget


def run_paths(run: str, budget: str, *, study: bool = False) -> RunPaths:
    """The paths of a run of params.yaml or, with `study`, of study/params.yaml."""
    models = Path("models/study" if study else "models")
    reports = reports_folder(budget, study=study) / "runs" / run
    digits = digits_folder(study=study)
    return RunPaths(digits, models / f"{run}.safetensors", models / f"{run}.html", reports)


def pretrained(num_digits: int) -> Path:
    """The published network that reads so many digits in an image; its card lies beside it."""
    return PRETRAINED / ("mnist.safetensors" if num_digits == 1 else "multimnist.safetensors")
