"""Reliability diagram of the capsule lengths, and the digit count by threshold."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from capsnet.config import RunConfig
from capsnet.losses import THRESHOLD
from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, chart, error_bars
from capsnet.studies.calibration.gap import calibration_error
from capsnet.studies.registry import Measured

LEAST = 5  # examples of a bin that is drawn


def calibration(
    bins: pd.DataFrame, counts: pd.DataFrame, path: Path, *, title: str, trained_on: str
) -> None:
    """Two panels from the tables `calibration` and `counts`; `trained_on` is "one digit" or
    "two digits".
    """
    with chart(path, height=1060, title=title) as figure:
        lengths, digits = figure.subplots(1, 2)
        draw_reliability(lengths, bins)
        draw_counts(digits, counts, trained_on)
        for axes in (lengths, digits):
            axes.set(xlim=(0, 1), ylim=(0, 102))
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=2, columnspacing=1)
            axes.grid(visible=True)


def draw_reliability(axes: Axes, bins: pd.DataFrame) -> None:
    axes.plot([0, 1], [0, 100], "--", color=GREY, lw=0.8, label="perfect calibration")
    styles = {"predicted digits": (BLUE, "o-"), "all ten digits": (GREEN, "s:")}
    for name, rows in bins[bins["examples"] >= LEAST].groupby("group", sort=False):
        color, form = styles[name]
        bars = error_bars(rows["there"], rows["there_low"], rows["there_high"])
        style = {"fmt": form, "color": color, "label": name, "capsize": 2}
        axes.errorbar(rows["length"], rows["there"], bars, **style)
    axes.set(xlabel="capsule length (mean of a bin)", ylabel="digits present (%)")
    error, side = calibration_error(bins)
    axes.set_title(f"Calibration error of the predictions: {error:.1f} %, {side}")


def draw_counts(axes: Axes, counts: pd.DataFrame, trained_on: str) -> None:
    colors = (GREY, ORANGE, BLUE, PURPLE)
    lines = zip(colors, counts.groupby("shown", sort=False), strict=False)
    for color, (name, rows) in lines:
        axes.plot(rows["threshold"], rows["right"], "o-", color=color, ms=2.5, label=name)
    axes.axvline(THRESHOLD, color=INK, lw=0.8, ls=":")
    right = counts[counts["threshold"] == THRESHOLD].set_index("shown")["right"][trained_on]
    number = trained_on.split()[0]
    axes.set_title(f"Threshold {THRESHOLD:g}: {trained_on} counted as {number} in {right:.0f} %")
    axes.set(xlabel="threshold on the capsule length", ylabel="images counted correctly (%)")


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    calibration(
        found.tables["calibration"],
        found.tables["counts"],
        folder / "figures" / "calibration.png",
        title=f"{run}: calibration of the capsule lengths, and counting digits",
        trained_on="one digit" if config.task.num_digits == 1 else "two digits",
    )
