"""The tables of a run, read back, and what a topic says of them in the report."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

FEW = 100  # examples: fewer are neither spoken of nor drawn


class Results(NamedTuple):
    """What was measured of one run: its headline numbers and its tables by name."""

    name: str
    headline: dict[str, float | None]
    tables: dict[str, pd.DataFrame]
    record: dict[str, object] | None = None  # of its training, from capsnet.provenance


class Section(NamedTuple):
    """A topic in the report. A finding takes a run's results and its configuration and returns a
    sentence; where the paper says something to compare with, it says whether this run agrees.
    """

    heading: str
    findings: dict[str, Callable[..., str]]  # figure within a run's folder -> finding
    folded: str = ""  # pattern of more figures, folded away


def read_results(folder: Path, tables: Iterable[str], training: Path | None = None) -> Results:
    """What a run's folder holds: the headlines of its training and evaluation, and these tables.
    What is of its training may be in a folder of its own.
    """
    training, headline = training or folder, {}
    for path in (training / "training.json", folder / "metrics.json"):
        headline |= json.loads(path.read_text())[folder.name]
    places = {table: training if table == "training" else folder for table in tables}
    found = {table: pd.read_csv(place / f"{table}.csv") for table, place in places.items()}
    record = training / "record.json"
    told = json.loads(record.read_text()) if record.exists() else None
    return Results(folder.name, headline, found, told)
