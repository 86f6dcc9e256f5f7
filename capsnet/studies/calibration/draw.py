"""Lengths against what they promise, and the number of digits seen against the threshold."""

from pathlib import Path

import pandas as pd

from capsnet.config import RunConfig
from capsnet.losses import THRESHOLD
from capsnet.plots.canvas import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, chart
from capsnet.studies.calibration.measure import expected_calibration_error
from capsnet.studies.registry import Measured


def calibration(
    bins: pd.DataFrame, counts: pd.DataFrame, path: Path, *, title: str, error: float,
    threshold: float, trained_on: str
) -> None:  # fmt: skip
    """`bins` (group, length, there, there_low, there_high, examples; shares in percent) of five
    examples or more, `counts` (shown, threshold, right), `error` the expected calibration error in
    percent, `trained_on` the `shown` of the training.
    """
    with chart(path, height=1060, title=title) as figure:
        lengths, digits = figure.subplots(1, 2)
        lengths.plot([0, 1], [0, 100], "--", color=GREY, lw=0.8, label="a probability")
        groups = bins[bins["examples"] >= 5].groupby("group", sort=False)
        styles = {"predicted digits": (BLUE, "o-"), "all ten digits": (GREEN, "s:")}
        for name, rows in groups:
            color, form = styles[name]
            interval = [rows["there"] - rows["there_low"], rows["there_high"] - rows["there"]]
            bars = [side.clip(lower=0) for side in interval]
            lengths.errorbar(
                rows["length"], rows["there"], bars, fmt=form, color=color, label=name, capsize=2
            )
        lengths.set(xlim=(0, 1), ylim=(0, 102), xlabel="length of the capsule (mean of a bin)")
        lengths.set_ylabel("digits that are there (%)")
        lengths.set_title(f"Predictions: {error:.1f} points off on average{_side(bins)}")
        colors = (GREY, ORANGE, BLUE, PURPLE)
        lines = zip(colors, counts.groupby("shown", sort=False), strict=False)
        for color, (name, rows) in lines:
            digits.plot(rows["threshold"], rows["right"], "o-", color=color, ms=2.5, label=name)
        digits.axvline(threshold, color=INK, lw=0.8, ls=":")
        right = counts[counts["threshold"] == threshold].set_index("shown")["right"][trained_on]
        number = trained_on.split()[0]
        digits.set_title(f"At {threshold:g}, {trained_on} counted as {number} in {right:.0f} %")
        digits.set(xlim=(0, 1), ylim=(0, 102), ylabel="right number of digits (%)")
        digits.set_xlabel("a digit is there if its capsule is longer than")
        for axes in (lengths, digits):
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.17), ncols=2, columnspacing=1)
            axes.grid(visible=True)


def _side(bins: pd.DataFrame) -> str:
    """Whether the predicted digits are mostly longer than they are often right, or the reverse."""
    rows = bins[bins["group"] == "predicted digits"]
    gap = ((100 * rows["length"] - rows["there"]) * rows["examples"]).sum()
    return ", too sure" if gap > 0 else ", not sure enough"


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    bins = found.tables["calibration"]
    calibration(
        bins,
        found.tables["counts"],
        folder / "figures" / "calibration.png",
        title=f"{run}: are lengths probabilities, and how many digits are seen?",
        error=expected_calibration_error(bins),
        threshold=THRESHOLD,
        trained_on="one digit" if config.task.num_digits == 1 else "two digits",
    )
