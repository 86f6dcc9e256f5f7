"""Confusion matrix, and error by pair of digits and by overlap."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from capsnet.config import RunConfig
from capsnet.data.archives import TEN_DIGITS
from capsnet.plots.canvas import BLUE, ERRORS, INK, PALE, cell_grid, chart, error_bars
from capsnet.studies.registry import Measured

LEAST = 5  # pairs of an overlap bin that is drawn
ROW = 36  # pixels, least height of a class
MOST_NUMBERS = 40  # classes, up to which the cells of a matrix have numbers


def pair_errors(
    error: np.ndarray, path: Path, *, title: str, names: Sequence[str] = TEN_DIGITS
) -> None:
    """Error [n, n] in percent by pair of classes; NaN where there is no such pair."""
    sums = [f"{np.nanmean(row):.1f} %" if np.isfinite(row).any() else "" for row in error]
    labels = ("other digit (cells: error of the pair in %)", "one digit", "mean of the pairs")
    heat_map(error, path, form="{:.1f}", title=title, labels=labels, sums=sums, names=names)


def pair_matrix(table: pd.DataFrame, classes: Sequence[str] = TEN_DIGITS) -> np.ndarray:
    """Errors of the pairs in an error table: symmetric [j, j], NaN where there is no pair."""
    pairs = table[table["group"] == "pair"].set_index("name")["error"]
    names = [[f"{one} and {other}" for other in classes] for one in classes]
    errors = pairs.reindex(np.ravel(names)).to_numpy().reshape(len(classes), len(classes))
    return np.fmax(errors, errors.T)


def error_by_overlap(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """A bar for each row of the group `overlap`; those of fewer than LEAST pairs are left out."""
    few = table.loc[table["examples"] < LEAST, "name"]
    note = f"Left out, fewer than {LEAST} pairs: {', '.join(few)}." if len(few) else ""
    table = table[table["examples"] >= LEAST]
    position = np.arange(len(table))
    bins = zip(table["name"], table["examples"], strict=True)
    names = [f"{name.removesuffix(' %')}\nn = {examples:,.0f}" for name, examples in bins]
    with chart(path, height=800, title=title, note=note) as figure:
        axes = figure.subplots()
        bars = error_bars(*(table[name] for name in ("error", "error_low", "error_high")))
        axes.errorbar(position, table["error"], bars, fmt="o", color=BLUE)
        axes.set_xticks(position, names)
        axes.set_xlim(-0.6, len(table) - 0.4)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("shared ink in % of the smaller digit's ink; n pairs")
        axes.set_ylabel("error (%), with 95 % interval")
        axes.grid(visible=True, axis="y")


def heat_map(
    table: np.ndarray, path: Path, *, form: str, title: str, labels: tuple[str, str, str],
    sums: Sequence[str], names: Sequence[str]
) -> None:  # fmt: skip
    """Square table with a shaded off-diagonal; `labels` of the x, left and right axes."""
    num_classes = len(table)
    shade = np.where(np.eye(num_classes, dtype=bool), np.nan, table)
    most = np.nanmax(shade, initial=0) or 1
    with chart(path, height=max(1200, ROW * num_classes), title=title) as figure:
        axes = figure.subplots()
        axes.set_facecolor(PALE)
        axes.imshow(shade, cmap=ERRORS, vmin=0, vmax=most, aspect="auto")
        for (row, column), value in np.ndenumerate(table if num_classes <= MOST_NUMBERS else []):
            text = form.format(value)
            if text not in ("0", "nan"):  # no error; no such pair
                color = "white" if shade[row, column] > 0.7 * most else INK
                style = {"size": min(7.5, 90 / num_classes), "color": color}
                axes.text(column, row, text, ha="center", va="center", **style)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        right = axes.secondary_yaxis("right")
        right.set_ylabel(labels[2])
        right.set_yticks(range(num_classes), sums)
        right.tick_params(length=0)
        right.spines[:].set_visible(False)
        cell_grid(axes, names, names)


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    run, table, folder = config.title, found.tables["errors"], folder / "figures"
    names, cells = found.classes, found.tables["confusion"]["count"].to_numpy()
    counts, title = cells.reshape(len(names), len(names)), f"{run}: confusion matrix"
    sums = [f"{row.sum() - row[true]:,.0f} of {row.sum():,.0f}" for true, row in enumerate(counts)]
    labels = ("predicted digit (grey: correct; orange: errors)", "true digit", "errors")
    words = {"form": "{:,.0f}", "title": title, "labels": labels, "sums": sums}
    heat_map(counts, folder / "confusion.png", names=names, **words)
    by_overlap = table[table["group"] == "overlap"]
    if len(by_overlap):
        pairs = table.loc[table["group"] == "pair", "examples"]
        title = f"{run}: error by pair of digits, {pairs.min():,} to {pairs.max():,} examples each"
        matrix = pair_matrix(table, names)
        pair_errors(matrix, folder / "pairs.png", title=title, names=names)
        title = f"{run}: error by overlap of the two digits"
        error_by_overlap(by_overlap, folder / "overlap.png", title=title)
