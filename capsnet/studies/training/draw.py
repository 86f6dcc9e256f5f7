"""Loss parts and errors over a training."""

from pathlib import Path

import numpy as np
import pandas as pd

from capsnet.config import RunConfig
from capsnet.plots.canvas import BLUE, GREEN, INK, ORANGE, chart, log_scale
from capsnet.studies.registry import Measured

LOSS_NAMES = {
    "loss": "total",
    "classification_loss": "classification",
    "reconstruction_loss": "reconstruction, before its weight",
}


def training_curve(curve: pd.DataFrame, path: Path, *, title: str) -> None:
    """Loss parts, and the errors (percent) on validation and training digits, against the number of
    examples seen.
    """
    unit, unit_name = (1e6, "millions") if curve["examples"].max() >= 1e6 else (1e3, "thousands")
    examples, error = curve["examples"] / unit, curve["validation_error"].dropna()  # may be none
    lines = {"classification_loss": (BLUE, "-"), "reconstruction_loss": (GREEN, "--")}
    if curve["reconstruction_loss"].fillna(0).eq(0).all():
        del lines["reconstruction_loss"]
    else:
        lines = {"loss": (INK, "-")} | lines
    with chart(path, height=760, title=title) as figure:
        losses, errors = figure.subplots(1, 2)
        for name, (color, line) in lines.items():
            positive = curve[name].where(curve[name] > 0)  # a log axis has no zero
            label = LOSS_NAMES[name]
            losses.plot(examples, positive, line, color=color, label=label)
        log_scale(losses, curve[list(lines)].to_numpy())
        losses.set(title="Training loss", ylabel="loss per example")
        losses.legend()
        names = {"validation_error": (ORANGE, "o-"), "training_error": (BLUE, "s--")}
        for name, (color, form) in names.items():
            kind = name.removesuffix("_error")
            errors.plot(examples, curve[name], form, color=color, label=f"on {kind} digits")
        both = curve[list(names)].to_numpy()
        if len(error) and np.nanmax(both) > 10 * np.nanmin(both) > 0:
            log_scale(errors, both)
        else:
            errors.set_ylim(0, 1.1 * np.nanmax(both) if len(error) and np.nanmax(both) else 1)
        found = f", {error.iloc[-1]:.2f} % at the end" if len(error) else " was not measured"
        errors.set(title="Validation error" + found, ylabel="error (%)")
        errors.legend()
        for axes in (losses, errors):
            axes.set(xlabel=f"examples seen ({unit_name})", xlim=(0, 1.02 * examples.max()))
            axes.grid(visible=True)


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    title = f"{run}: training loss and error"
    training_curve(found.tables["training"], folder / "figures" / "training.png", title=title)
