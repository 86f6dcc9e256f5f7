"""Figures with axes: curves, points with intervals, heat maps."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from capsnet.figures.canvas import (
    BLUE,
    ERRORS,
    GREEN,
    INK,
    ORANGE,
    PALE,
    chart,
    log_scale,
)

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


def confusion(counts: np.ndarray, path: Path, *, title: str) -> None:
    """Counts [n, n], true class by predicted class; only mistakes are coloured."""
    sums = [f"{row.sum() - row[true]:,.0f} of {row.sum():,.0f}" for true, row in enumerate(counts)]
    labels = ("predicted digit (grey: right; orange: mistakes)", "true digit", "mistakes")
    heat_map(counts, path, form="{:,.0f}", title=title, labels=labels, sums=sums)


def pair_errors(error: np.ndarray, path: Path, *, title: str) -> None:
    """Error [n, n] in percent by unordered pair of classes; NaN where there is no such pair."""
    sums = [f"{np.nanmean(row):.1f} %" if np.isfinite(row).any() else "" for row in error]
    labels = ("other digit; in the cells: error of the pair (%)", "one digit", "mean of the pairs")
    heat_map(error, path, form="{:.1f}", title=title, labels=labels, sums=sums)


def error_by_overlap(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Rows (name of the bin, examples, error, error_low, error_high; percent) of pairs, binned by
    how much the two digits overlap.
    """
    position, error = np.arange(len(table)), table["error"]
    interval = [(error - table["error_low"]).clip(0), (table["error_high"] - error).clip(0)]
    bins = zip(table["name"], table["examples"], strict=True)
    names = [f"{name.removesuffix(' %')}\n{examples:,.0f}" for name, examples in bins]
    with chart(path, height=800, title=title) as figure:
        axes = figure.subplots()
        axes.errorbar(position, error, interval, fmt="o", color=BLUE)
        axes.set_xticks(position, names)
        axes.set_xlim(-0.6, len(table) - 0.4)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("shared ink, in % of the smaller digit's; below it, the number of pairs")
        axes.set_ylabel("error (%), with 95 % interval")
        axes.grid(visible=True, axis="y")


def growth(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Rows (growing, contestant, size, batch_size, seconds) as four panels: one of each `growing`,
    in it a line of each `contestant`. Time of routing, but images/s in the panel "training"."""
    styles = [(BLUE, "o-"), (GREEN, "s--")]
    with chart(path, height=1240, title=title) as figure:
        panels = zip(figure.subplots(2, 2).flat, table.groupby("growing", sort=False), strict=True)
        for axes, (growing, rows) in panels:
            speed = growing == "training"
            value = rows["batch_size"] / rows["seconds"] if speed else 1000 * rows["seconds"]
            rows = rows.assign(value=value)
            lines = rows.groupby("contestant", sort=False)
            for (color, form), (name, line) in zip(styles, lines, strict=False):  # at most two
                axes.plot(line["size"], line["value"], form, color=color, label=name)
            sizes = rows["size"].unique()
            axes.set_xscale("linear" if growing == "iterations" else "log")
            axes.set_xticks(sizes, sizes)
            axes.set_xticks([], minor=True)
            if speed or growing == "iterations":
                axes.set_ylim(0, 1.1 * value.max())
            else:
                log_scale(axes, value.to_numpy())
            axes.set_title(fastest_sizes(rows) if speed else slowdown(growing, rows))
            axes.set_xlabel("images in a batch" if growing in ("images", "training") else growing)
            axes.set_ylabel("training speed (images/s)" if speed else "time of a batch (ms)")
            axes.grid(visible=True)
            axes.legend()


def slowdown(growing: str, rows: pd.DataFrame) -> str:
    """Of the first contestant, from its first size to its last: how many times the time."""
    line = rows[rows["contestant"] == rows["contestant"].iloc[0]]
    sizes, seconds = (line[name].iloc[-1] / line[name].iloc[0] for name in ("size", "seconds"))
    return f"{sizes:.3g}x the {growing}: {line['contestant'].iloc[0]} takes {seconds:.2g}x the time"


def fastest_sizes(rows: pd.DataFrame) -> str:
    best = rows.loc[rows.groupby("contestant", sort=False)["value"].idxmax()]
    sizes = [f"{row.size} ({row.contestant})" for row in best[["size", "contestant"]].itertuples()]
    return "Training: fastest at " + " and ".join(sizes)


def heat_map(
    table: np.ndarray, path: Path, *, form: str, title: str, labels: tuple[str, str, str],
    sums: Sequence[str]
) -> None:  # fmt: skip
    """A square table, all but its diagonal shaded; labels below, left and right (of the sums)."""
    num_classes = len(table)
    shade = np.where(np.eye(num_classes, dtype=bool), np.nan, table)
    most = np.nanmax(shade, initial=0) or 1
    with chart(path, height=1200, title=title) as figure:
        axes = figure.subplots()
        axes.set_facecolor(PALE)
        axes.imshow(shade, cmap=ERRORS, vmin=0, vmax=most, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            text = form.format(value)
            if text not in ("0", "nan"):  # no mistake; no such pair
                color = "white" if shade[row, column] > 0.7 * most else INK
                style = {"size": min(7.5, 90 / num_classes), "color": color}
                axes.text(column, row, text, ha="center", va="center", **style)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        right = axes.secondary_yaxis("right")
        right.set_ylabel(labels[2])
        for side, texts in ((axes.xaxis, None), (axes.yaxis, None), (right.yaxis, sums)):
            side.set_ticks(range(num_classes), texts)
            side.set_tick_params(length=0)
        axes.set_xticks(np.arange(0.5, num_classes - 1), minor=True)
        axes.set_yticks(np.arange(0.5, num_classes - 1), minor=True)
        axes.grid(visible=True, which="minor")
        axes.tick_params(which="minor", length=0)
        axes.spines[:].set_visible(False)
        right.spines[:].set_visible(False)
