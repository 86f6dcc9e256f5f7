"""Runs side by side: the error of each with its interval, and what the paper has for it."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd

from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, chart, error_bars

STYLES = [(BLUE, "o-"), (ORANGE, "s--"), (GREEN, "^-"), (PURPLE, "D--"), (INK, "v:"), (GREY, "x:")]


def comparison(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Rows (name, error, error_low, error_high, paper) from above; percent, NaN: not in the paper.

    The interval of several networks speaks of other trainings, that of one of other test digits.
    """
    place = np.arange(len(table))[::-1]
    bars = error_bars(table["error"], table["error_low"], table["error_high"])
    with chart(path, height=260 + 76 * len(table), title=title) as figure:
        axes = figure.subplots()
        axes.errorbar(table["error"], place, xerr=bars, fmt="o", color=BLUE, label="measured")
        if table["paper"].notna().any():
            axes.plot(table["paper"], place, "D", color=GREY, mfc="none", label="paper")
            axes.legend()
        for height, error in zip(place, table["error"], strict=True):
            text = f"{error:.2f}"
            axes.annotate(text, (error, height), (0, 7), textcoords="offset points", color=INK)
        axes.set_yticks(place, table["name"])
        axes.set(xlim=(0, None), ylim=(-0.6, len(table) - 0.2), xlabel="test error (%)")
        axes.grid(visible=True, axis="x")


def lines(
    table: pd.DataFrame,
    path: Path,
    *,
    title: str,
    x_label: str,
    y_label: str,
    styled: Sequence[str],
    least: float = 0,
) -> None:
    """A line for each `name` through (place, value) with low to high; places are numbers or words.

    Its place in `styled` gives a name its colour, which so is the same in every figure. The axis of
    values begins at `least`, or at the smallest value where that is less. Lines are moved apart a
    little, so that intervals do not hide each other.
    """
    places = list(dict.fromkeys(table["place"]))
    words = isinstance(places[0], str)
    names = list(dict.fromkeys(table["name"]))
    styles = dict(zip(styled, cycle(STYLES), strict=False))
    with chart(path, height=860, title=title) as figure:
        axes = figure.subplots()
        for number, name in enumerate(names):
            rows, (color, form) = table[table["name"] == name], styles[name]
            apart = number - (len(names) - 1) / 2
            x = [places.index(place) for place in rows["place"]] if words else rows["place"]
            x = np.asarray(x) + 0.04 * apart if words else np.asarray(x) * 1.015**apart
            bars = error_bars(rows["value"], rows["low"], rows["high"])
            axes.errorbar(x, rows["value"], bars, fmt=form, color=color, label=name)
        if words:
            axes.set_xticks(range(len(places)), places)
        else:
            axes.set_xscale("log")
            axes.set_xticks(sorted(places), [f"{place:,}" for place in sorted(places)])
            axes.set_xticks([], minor=True)
            axes.set_xlim(min(places) / 1.3, max(places) * 1.3)  # or one place would fill the width
        axes.set(xlabel=x_label, ylabel=y_label)
        low = np.nanmin([least, *table["value"], *table["low"]])
        axes.set_ylim(low, low + 1.1 * (np.nanmax(table[["value", "high"]]) - low))
        axes.grid(visible=True)
        axes.legend(loc="lower left", ncols=2)  # errors and shares lie far from the least
