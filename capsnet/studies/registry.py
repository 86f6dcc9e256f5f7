"""The topics of a study: `STUDIES`, in the order of the report.

A topic is a folder beside this file: `measure` (network and test examples in, tables out), `draw`
(tables in, PNG files out), `describe` (tables in, sentences out). A part is imported only when it
is used, so a changed sentence makes no measurement stale.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pandas as pd

from capsnet.data.archives import TEN_DIGITS
from capsnet.files import write_csv


class Study(NamedTuple):
    tables: tuple[str, ...] = ()  # CSV files in a run's folder
    stage: str = "evaluate"  # that measures it
    shown: bool = True  # it has figures, and sentences about them


class Measured(NamedTuple):
    tables: dict[str, pd.DataFrame]  # by the name of the CSV file
    pictures: object = None  # what `draw` needs beside the tables
    classes: tuple[str, ...] = TEN_DIGITS  # their names


STUDIES = {
    "reconstructions": Study(),
    "separation": Study(("separation",), shown=False),
    "perturbation": Study(("perturbation", "two_sigma"), stage="perturb"),
    "routing": Study(("routing",)),
    "robustness": Study(("robustness",)),
    "errors": Study(("errors", "confusion", "examples")),
    "calibration": Study(("calibration", "counts")),
    "training": Study(("training",), stage="train"),
}
TABLES = tuple(table for study in STUDIES.values() for table in study.tables)


def part(topic: str, name: str) -> ModuleType:
    """The file `name` of a topic: measure, draw or describe."""
    return import_module(f"capsnet.studies.{topic}.{name}")


def measure(topic: str, *arguments: object, out: Path, tracker) -> Measured:
    """Measure a topic with the `arguments` of its `study`, the evaluator first. Write the tables
    to the folder `out`, and log them.
    """
    found = part(topic, "measure").study(*arguments)
    for name, table in found.tables.items():
        write_csv(out / f"{name}.csv", table)
        tracker.artifact(out / f"{name}.csv")
    return found._replace(classes=arguments[0].digits.classes)


def sections() -> list[NamedTuple]:
    """The `results.Section` of each topic that a report shows."""
    return [part(topic, "describe").SECTION for topic, study in STUDIES.items() if study.shown]
