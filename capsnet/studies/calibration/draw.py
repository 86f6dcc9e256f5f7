"""Reliability diagram of the capsule lengths, and the digit count by threshold."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from capsnet.config import RunConfig
from capsnet.losses import THRESHOLD
from capsnet.nn.registry import NETWORKS
from capsnet.plots import canvas
from capsnet.studies.calibration.gap import calibration_error
from capsnet.studies.registry import Measured

LEAST = 5  # examples of a bin that is drawn


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    bins, counts = found.tables["calibration"], found.tables["counts"]
    score = "capsule length" if NETWORKS[config.network].gives_lengths else "probability"
    title = f"{config.title}: calibration, and counting digits"
    note = "Numbers below the curves: examples of each bin. Bars: 95 % intervals."
    path = folder / "figures" / "calibration.png"
    with canvas.chart(path, height=1100, title=title, note=note) as figure:
        lengths, digits = figure.subplots(1, 2)
        draw_reliability(lengths, bins)
        draw_counts(digits, counts, "one digit" if config.task.num_digits == 1 else "two digits")
        lengths.set(xlabel=f"{score} (mean of a bin)")
        digits.set(xlabel=f"threshold on the {score}")
        for axes in (lengths, digits):
            axes.set(xlim=(0, 1.03))
            axes.grid(visible=True)
            canvas.legend_below(axes)


def draw_reliability(axes: Axes, bins: pd.DataFrame) -> None:
    """Curves with a bar for each bin, and below them the number of examples of each bin."""
    axes.plot([0, 1], [0, 100], "--", color=canvas.GREY, lw=0.8, label="perfect calibration")
    styles = (canvas.BLUE, "o-", -7), (canvas.GREEN, "s:", -14)
    for number, (name, rows) in enumerate(bins.groupby("group", sort=False)):
        rows, (color, form, below) = rows[rows["examples"] >= LEAST], styles[number]
        bars = canvas.error_bars(rows["there"], rows["there_low"], rows["there_high"])
        style = {"fmt": form, "color": color, "label": name, "capsize": 2}
        axes.errorbar(rows["length"], rows["there"], bars, **style)
        for row in rows.itertuples():
            style = {"color": color, "size": 5, "ha": "center"}
            axes.text((row.low + row.high) / 2, below, f"{row.examples:,}", **style)
    axes.axhline(0, color=canvas.GREY, lw=0.8)
    axes.set(ylabel="digits present (%)", ylim=(-18, 104), yticks=range(0, 101, 20))
    error, side = calibration_error(bins)
    axes.set_title(f"Calibration error of the predictions: {error:.1f} %, {side}")


def draw_counts(axes: Axes, counts: pd.DataFrame, trained_on: str) -> None:
    colors = (canvas.GREY, canvas.ORANGE, canvas.BLUE, canvas.PURPLE)
    lines = zip(colors, counts.groupby("shown", sort=False), strict=False)
    for color, (name, rows) in lines:
        axes.plot(rows["threshold"], rows["right"], "o-", color=color, ms=2.5, label=name)
    axes.axvline(THRESHOLD, color=canvas.INK, lw=0.8, ls=":")
    right = counts[counts["threshold"] == THRESHOLD].set_index("shown")["right"][trained_on]
    number = trained_on.split()[0]
    axes.set_title(f"Threshold {THRESHOLD:g}: {trained_on} counted as {number} in {right:.0f} %")
    axes.set(ylabel="images counted correctly (%)", ylim=(0, 104))
