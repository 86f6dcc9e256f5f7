"""Runs side by side: the error of each with its interval, and what the paper has for it."""

from pathlib import Path

import numpy as np
import pandas as pd

from capsnet.figures.canvas import BLUE, GREY, INK, chart


def comparison(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Rows (name, error, error_low, error_high, paper) from above; percent, NaN: not in the paper.

    A point is one trained network, so an interval says what other test digits would give, not
    another training.
    """
    place = np.arange(len(table))[::-1]
    interval = [table["error"] - table["error_low"], table["error_high"] - table["error"]]
    bars = [side.clip(lower=0) for side in interval]
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
