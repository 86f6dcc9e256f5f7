"""Loss and error over the course of a training."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from capsnet.config import RunConfig
from capsnet.plots.canvas import BLUE, GREEN, INK, ORANGE, chart, legend_below, log_scale
from capsnet.studies.registry import Measured


def training_curve(curve: pd.DataFrame, path: Path, *, title: str) -> None:
    """Loss with its parts, training and validation error (%), by the number of examples seen."""
    unit, unit_name = (1e6, "millions") if curve["examples"].max() >= 1e6 else (1e3, "thousands")
    examples = curve["examples"] / unit
    with chart(path, height=800, title=title) as figure:
        losses, errors = figure.subplots(1, 2)
        draw_losses(losses, examples, curve)
        draw_errors(errors, examples, curve)
        for axes in (losses, errors):
            axes.set(xlabel=f"examples seen ({unit_name})", xlim=(0, 1.02 * examples.max()))
            axes.grid(visible=True)
            legend_below(axes)


def draw_losses(axes: Axes, examples: pd.Series, curve: pd.DataFrame) -> None:
    """Only the classification loss where nothing is reconstructed."""
    lines = {"classification_loss": (BLUE, "-", "classification")}
    if not curve["reconstruction_loss"].fillna(0).eq(0).all():
        lines = {"loss": (INK, "-", "total")} | lines
        lines["reconstruction_loss"] = (GREEN, "--", "reconstruction, unweighted")
    for name, (color, line, label) in lines.items():
        positive = curve[name].where(curve[name] > 0)  # a log axis has no zero
        axes.plot(examples, positive, line, color=color, label=label)
    log_scale(axes, curve[list(lines)].to_numpy())
    axes.set(title="Training loss", ylabel="loss per example")


def draw_errors(axes: Axes, examples: pd.Series, curve: pd.DataFrame) -> None:
    """The last validation error stands in the title; there may be none."""
    for kind, color, form in (("validation", ORANGE, "o-"), ("training", BLUE, "s--")):
        error = curve[f"{kind}_error"]
        axes.plot(examples, error, form, color=color, label=f"on {kind} digits")
    both, error = curve[["validation_error", "training_error"]], curve["validation_error"].dropna()
    if len(error) and np.nanmax(both) > 10 * np.nanmin(both) > 0:
        log_scale(axes, both.to_numpy())
    else:
        axes.set_ylim(0, 1.1 * np.nanmax(both) if len(error) and np.nanmax(both) else 1)
    found = f", {error.iloc[-1]:.2f} % at the end" if len(error) else " was not measured"
    axes.set(title="Validation error" + found, ylabel="error (%)")


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    title = f"{config.title}: training loss and error"
    training_curve(found.tables["training"], folder / "figures" / "training.png", title=title)
