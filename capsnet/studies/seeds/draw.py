"""Test errors of rows against the length of training and by overlap; separation by overlap."""

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator

from capsnet.plots import canvas
from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE
from capsnet.studies.seeds.measure import by_overlap, row_table

STYLES = [(BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^-"), (PURPLE, "D--"), (INK, "v:"), (GREY, "x:"),
          (GREEN, "P--"), (ORANGE, "*-")]  # fmt: skip
ERROR, SHARED = "test error (%)", "shared ink, of the smaller digit's"
CHANCE = 50  # percent, of the separation accuracy
NOTE = (
    "n: test pairs of a range, the same for each network. Bars: lowest and highest end of the 95 % "
    "intervals of a row's networks.",
    "n: networks that differ only in their seed, of each point from left to right. Bars: 95 % "
    "intervals.",
)
FIGURES = {  # title, labels of the axes, lowest value
    "length": ("Test error against length of training", "images shown", ERROR, 0),
    "overlap": ("Test error by overlap", SHARED, ERROR, 0),
    "separation": ("Separation accuracy by overlap", SHARED, "separation accuracy (%)", CHANCE),
}


def draw(runs: pd.DataFrame, folder: Path) -> Iterator[tuple[str, Path]]:
    """Draw the records of one task, budget and family: rows of several lengths, and by overlap the
    rows of the length that has most networks.

    Yields title and file of each figure; nothing for a single row, which has nothing to compare.
    """
    table = row_table(runs)
    if len(table) < 2:
        return
    first, examples = table.iloc[0], table.groupby("examples")["networks"].sum().idxmax()
    alike = runs[runs["row"].isin(table.index[table["examples"] == examples])]
    several = table.groupby("name")["examples"].transform("count") > 1
    found = {
        "length": table[several].rename(columns={"examples": "place", "test_error": "value"}),
        "overlap": by_overlap(alike, "errors", "overlap"),
        "separation": by_overlap(alike, "separation", "separation_accuracy"),
    }
    names = dict.fromkeys([*table["name"][several], *alike["name"]])
    styles = dict(zip(names, cycle(STYLES), strict=False))
    for name, points in found.items():
        title, x_label, y_label, least = FIGURES[name]
        if first["family"] == "compact":
            title += ", compact networks"
        if name != "length":
            title += f", after {examples:,} training images"
        if len(points):
            path = folder / f"{name}_{first['task']}_{first['family']}_{first['budget']}.png"
            note = NOTE[name == "length"]
            with canvas.chart(path, height=1000, title=title, note=note) as figure:
                axes = figure.subplots()
                axes.set(xlabel=x_label, ylabel=y_label)
                lines(axes, points, styles, least=least)
            yield title, path


def lines(axes, table: pd.DataFrame, styles: dict[str, tuple[str, str]], *, least: float) -> None:
    """A line for each `name` through (place, value) with low to high; places are numbers or words.

    The axis of values begins at `least`, or at the smallest value if that is less. Lines are moved
    apart a little, so that intervals do not hide each other.
    """
    places, names = list(table["place"].unique()), list(table["name"].unique())
    words = isinstance(places[0], str)
    for number, name in enumerate(names):
        rows, (color, form) = table[table["name"] == name], styles[name]
        apart = number - (len(names) - 1) / 2
        if words:
            x = rows["place"].map(places.index) + 0.04 * apart
        else:
            rows = rows.sort_values("place")
            name += f", n = {', '.join(map(str, rows['networks']))}"
            x = rows["place"] * 1.015**apart
        bars = canvas.error_bars(rows["value"], rows["low"], rows["high"])
        axes.errorbar(x, rows["value"], bars, fmt=form, color=color, label=name)
    if words:
        counts = table.groupby("place")["examples"].max()
        axes.set_xticks(range(len(places)), [f"{name}\nn = {counts[name]:,}" for name in places])
    else:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlim(min(places) / 1.3, max(places) * 1.3)  # or one place would fill the width
    low = np.nanmin([least, *table["value"], *table["low"]])
    axes.set_ylim(low, low + 1.1 * (np.nanmax(table[["value", "high"]]) - low))
    axes.grid(visible=True)
    canvas.legend_below(axes)
