"""The tables of a run, read back, and what reports are made of: tables and figures in Markdown."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from capsnet.config import RunConfig

CLASS_COLUMNS = ("digit", "label", "prediction", "name")
FEW = 100  # examples: groups with fewer are neither reported nor drawn


class Results(NamedTuple):
    """Headline numbers and tables of one run, by name."""

    name: str
    headline: dict[str, float | None]
    tables: dict[str, pd.DataFrame]
    record: dict[str, object] | None = None  # of its training, from capsnet.provenance


class Section(NamedTuple):
    """A topic in a report. A finding takes results and configuration of a run; it returns text."""

    heading: str
    findings: tuple[Callable[[Results, RunConfig], str], ...]  # each has the name of its figure
    folder: str = "figures"  # in the run's folder
    folded: str = ""  # pattern of further figures there, folded away
    overview: Callable[..., Iterator[str]] | None = None  # of all runs, before their figures


def read_results(folder: Path, tables: Iterable[str], training: Path | None = None) -> Results:
    """Read tables and headline numbers. `training`: the folder of its files, if another one."""
    training, headline = training or folder, {}
    for path in (training / "training.json", folder / "metrics.json"):
        [runs] = json.loads(path.read_text()).values()  # budget -> run -> numbers
        headline |= runs[folder.name]
    places = {table: training if table == "training" else folder for table in tables}
    found = {table: read_table(place / f"{table}.csv") for table, place in places.items()}
    record = training / "record.json"
    return Results(
        folder.name, headline, found, json.loads(record.read_text()) if record.exists() else None
    )


def read_table(path: Path) -> pd.DataFrame:
    """Read a table. A class may be named 01 or NA: names are text, only empty cells are missing."""
    text = dict.fromkeys(CLASS_COLUMNS, str)
    return pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])


def run_figures(
    section: Section, results: Results, config: RunConfig, folder: Path, here: Path
) -> Iterator[str]:
    """The figures of a topic that exist in the run's folder, each below its finding."""
    folder = folder / section.folder
    for finding in section.findings:
        if (path := folder / f"{finding.__name__}.png").exists():
            yield f"**{config.title}.** {finding(results, config)}"
            yield picture(f"{results.name}: {path.stem}", path, here)
    folded = sorted(folder.glob(section.folded)) if section.folded else []
    if folded:
        summary = f"{config.title}: the dimensions of each digit (Figure 4)"
        yield f"<details><summary>{summary}</summary>"
        yield from (picture(path.stem.replace("_", " "), path, here) for path in folded)
        yield "</details>"


def picture(caption: str, path: Path, here: Path) -> str:
    """The image with a link from a page in the folder `here`."""
    return f"![{caption}]({Path(os.path.relpath(path, here)).as_posix()})"


def markdown(rows: Iterable[Mapping[str, str]]) -> str:
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def number(value: float | None, form: str = ".2f") -> str:
    """What is missing is "-"."""
    return "-" if pd.isna(value) else f"{value:{form}}"


def with_sd(mean: float, sd: float | None, form: str = ".2f") -> str:
    """Mean ± standard deviation, as far as they are known."""
    return number(mean, form) + ("" if pd.isna(sd) else f" ± {sd:{form}}")
