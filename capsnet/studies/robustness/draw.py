"""Error under rotation, shear, scale and translation, and examples of the random affine test."""

import textwrap
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from capsnet.config import RunConfig
from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE, PALE, PURPLE, chart, error_bars
from capsnet.plots.pictures import Column, cut, in_color, picture_columns
from capsnet.studies.registry import Measured

LINES = [(BLUE, "o-"), (GREEN, "s--"), (PURPLE, "^:"), (INK, "d-.")]


class Panel(NamedTuple):
    """Words in the title, label of the axis, range of affNIST, and the amounts that the title
    reports, by default the ends of the range.
    """

    words: str
    axis: str
    range: tuple[float, float]
    named: tuple[float, ...] = ()


PANELS = {
    "rotation": Panel("rotated by 20 degrees", "rotation (degrees, anticlockwise)", (-20, 20)),
    "shear": Panel("sheared by 0.2", "shear (pixels to the right for each pixel up)", (-0.2, 0.2)),
    "scale": Panel("scaled by 0.8 or 1.2", "scale", (0.8, 1.2)),
    "translation": Panel(
        "4 px from the centre", "distance from the centre (px; affNIST: on 40x40)", (0, 10), (4,)
    ),
}
TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)  # percent
ERROR_COLUMNS = ("error", "error_low", "error_high")
TITLE_LETTERS = 56  # that fit above a panel


def robustness_curves(tables: dict[str, pd.DataFrame], path: Path, *, title: str) -> None:
    """Error (percent, 95 % interval) against each transform on one log scale, from the table
    `robustness` of each run.

    An error of zero is drawn at a tick 0 below the scale. Colours repeat after four runs.
    """
    curves = {run: table[table["transform"].isin(PANELS)] for run, table in tables.items()}
    all_rows = pd.concat(curves.values())
    # The position of zero on the log axis, in percent: below every error and every interval.
    values = all_rows[["error", "error_low"]]
    zero = 0.5 * float(np.fmin(values.where(values > 0).min().min(), 1.0))
    ticks = {tick: f"{tick:g}" for tick in TICKS if tick > 1.5 * zero}
    if all_rows["error"].eq(0).any():
        ticks[zero] = "0"
    with chart(path, height=1360, title=title, note="Bars: 95 % intervals.") as figure:
        panels = figure.subplots(2, 2, sharey=True)
        for axes, (transform, panel) in zip(panels.flat, PANELS.items(), strict=True):
            rows = {run: table[table["transform"] == transform] for run, table in curves.items()}
            draw_panel(axes, rows, panel, zero)
        for axes in panels[:, 0]:
            axes.set(yscale="log", ylim=(0.8 * zero, 115), ylabel="error (%)")
            axes.set_yticks(list(ticks), list(ticks.values()))
            axes.yaxis.set_minor_locator(NullLocator())
        handles, labels = panels[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)))


def draw_panel(axes: Axes, rows: dict[str, pd.DataFrame], panel: Panel, zero: float) -> None:
    amounts = np.concatenate([table["amount"] for table in rows.values()])
    span = np.ptp(amounts) or 1.0
    limits = amounts.min() - 0.04 * span, amounts.max() + 0.04 * span
    known = np.clip(panel.range, *limits)
    axes.axvspan(*known, color=PALE, lw=0, zorder=0, label="range of affNIST")
    for number, (run, table) in enumerate(rows.items()):
        (color, form), n = LINES[number % len(LINES)], table["examples"].max()
        table = table.sort_values("amount")
        x = table["amount"] + 0.01 * span * (number - (len(rows) - 1) / 2)  # no bar hides another
        error, low, high = (table[name].clip(lower=zero) for name in ERROR_COLUMNS)
        style = {"fmt": form, "color": color, "label": f"{run}, n = {n:,} a point", "capsize": 2}
        axes.errorbar(x, error, error_bars(error, low, high), **style)
    axes.set(title=headline(rows, panel), xlabel=panel.axis, xlim=limits)
    axes.grid(visible=True, axis="y", color=GREY, alpha=0.25)


def headline(rows: dict[str, pd.DataFrame], panel: Panel) -> str:
    """Mean error at the amounts of the panel, of the best and of the worst run."""
    found = sorted(
        (table.loc[table["amount"].isin(panel.named or panel.range), "error"].mean(), run)
        for run, table in rows.items()
    )
    (best, best_run), (worst, worst_run) = found[0], found[-1]
    if len(found) == 1:
        return f"{best:.1f} % error if {panel.words}"
    errors = f"{best:.1f} % ({best_run}) to {worst:.1f} % ({worst_run})"
    return "\n".join([f"Error if {panel.words}:", *textwrap.wrap(errors, TITLE_LETTERS)])


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    """Digits above what is read: images [n, (c,) h, w], then labels [n] and predictions [n]."""
    if found.pictures is None:
        return
    degrees, share = config.evaluate.affine_degrees, 100 * config.evaluate.affine_translate
    moved = f"rotated by up to {degrees:g} degrees, shifted by up to {share:g} %"
    columns = []
    for *pictures, label, prediction in zip(*found.pictures, strict=True):
        color = INK if label == prediction else ORANGE
        words = {"true": found.classes[label], "read": found.classes[prediction]}
        heading = "\n".join(cut(f"{word} {name}") for word, name in words.items())
        columns.append(Column(heading, color, 0, in_color(pictures)))
    note = "True: label. Read: prediction for the transformed digit."
    if any(column.color == ORANGE for column in columns):
        note += " Framed in orange: read wrongly."
    path, title = folder / "figures" / "affine.png", f"{config.title}: {moved}"
    names = ["original", "trans-\nformed"]
    picture_columns(columns, path, names=names, title=title, note=note, framed=True)
