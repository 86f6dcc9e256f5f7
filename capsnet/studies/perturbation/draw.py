"""What the dimensions of a capsule do: Figure 4 of Sabour et al. 2017 with numbers, and all effects
on one page. Rising is purple and falling green, which colour-blind readers can tell apart.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.colors import LinearSegmentedColormap

from capsnet.config import RunConfig
from capsnet.plots.canvas import (
    BLUE,
    GAP,
    GREEN,
    INK,
    LINE,
    MARGIN,
    PALE,
    PURPLE,
    WIDTH,
    chart,
    frame,
    largest_scale,
    sheet,
    tiles,
)
from capsnet.plots.pictures import notice
from capsnet.studies.perturbation.effects import effect_words
from capsnet.studies.registry import Measured

CHANGES = LinearSegmentedColormap.from_list(
    "changes", ["#00412F", GREEN, "#FFFFFF", PURPLE, "#4A1042"]
)
STRONGEST = 3  # typical changes at which the colours end


def perturbation_grid(
    images: np.ndarray, values: np.ndarray, names: Sequence[str], path: Path, *, digit: int,
    two_sigma: Sequence[float]
) -> None:  # fmt: skip
    """Figure 4: reconstructions [num_dimensions, num_values, h, w], one dimension a row.
    two_sigma: [num_dimensions], two standard deviations over the capsules of this digit.
    """
    rows = [
        f"dim {dimension}, 2 sd: {reach:.2f}\n{name}"
        for dimension, (name, reach) in enumerate(zip(names, two_sigma, strict=True))
    ]
    title = f"Digit {digit}: what each dimension of its capsule does"
    sweeps(images, values, path, names=rows, title=title, largest=4)


def perturbation_overview(
    rows: Sequence, values: np.ndarray, path: Path, *, title: str, added: str = "value"
) -> None:
    """One row (digit, dimension, name, images [num_values, h, w]) for each measure: the dimension
    that changes it most clearly. `added`: what the values count.
    """
    names = [f"digit {row.digit}, dim {row.dimension}\n{row.name}" for row in rows]
    images = [row.images for row in rows]
    sweeps(images, values, path, names=names, title=title, largest=5, added=added)


def sweeps(
    rows: Sequence[np.ndarray], values: np.ndarray, path: Path, *, names: Sequence[str],
    title: str, largest: int, added: str = "value"
) -> None:  # fmt: skip
    """Rows of reconstructions [num_values, h, w] under what was added to one dimension."""
    left, head = 316, LINE + GAP
    height, width = rows[0].shape[1:]
    room = WIDTH - 2 * MARGIN - left
    scale = largest_scale(width, len(values), room=room, largest=largest)
    across, down = scale * width + GAP, scale * height + GAP
    note = f"Columns: {added} added to the dimension"
    note += "; framed: nothing added. " if np.isclose(values, 0).any() else ". "
    note += "Number: change from the first column to the last, mean over many test digits, of which"
    note += " a typical one is shown; none: no measure changes visibly."
    size = {"width": left + len(values) * across, "height": head + len(rows) * down}
    with sheet(path, title=title, note=note, **size) as axes:
        for column, value in enumerate(values):
            x = left + column * across
            text = f"{round(float(value), 3):+g}".replace("-", "\N{MINUS SIGN}")
            if np.isclose(value, 0):
                text = "0"
                frame(axes, (x, head), scale * width, len(rows) * down - GAP, BLUE)
            axes.text(x + scale * width / 2, LINE, text, ha="center", va="bottom")
        tiles(axes, rows, left, head, scale)
        for row, name in enumerate(names):
            axes.text(0, head + (row + 0.5) * down, name, va="center", linespacing=1.3)


def effects(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Rows (digit, dimension, measure, effect, significant, label): a panel for each measure, in it
    a cell for each dimension of each digit; only significant effects are coloured."""
    measures = list(dict.fromkeys(table["measure"]))
    num_rows = -(-len(measures) // 2)
    with chart(path, height=180 + 430 * num_rows, title=title) as figure:
        panels = figure.subplots(num_rows, 2, sharex=True, sharey=True, squeeze=False)
        for place, measure in enumerate(measures):
            axes = panels[place // 2, place % 2]
            shown = _panel(axes, table[table["measure"] == measure], measure.replace("_", " "))
            axes.set(
                xlabel="dimension" if place // 2 == num_rows - 1 else None,
                ylabel="digit" if place % 2 == 0 else None,
            )
        for axes in panels.flat[len(measures) :]:
            axes.set_visible(False)
        bar = figure.colorbar(shown, ax=panels, extend="both", aspect=50, pad=0.01)
        bar.set_label("change over the sweep, relative to the measure's typical change")
        bar.outline.set_visible(False)


def _panel(axes, rows: pd.DataFrame, measure: str):
    """One measure, [digit, dimension]; its title says how many cells are coloured."""
    significant = rows["significant"].astype(bool)
    coloured = rows.assign(effect=rows["effect"].where(significant))
    cells = coloured.pivot(index="digit", columns="dimension", values="effect").astype(float)
    shown = axes.imshow(cells, cmap=CHANGES, vmin=-STRONGEST, vmax=STRONGEST, aspect="auto")
    axes.set_facecolor(PALE)
    axes.set_xticks(range(cells.shape[1]), cells.columns)
    axes.set_yticks(range(cells.shape[0]), cells.index)
    axes.set_xticks(np.arange(0.5, cells.shape[1] - 1), minor=True)
    axes.set_yticks(np.arange(0.5, cells.shape[0] - 1), minor=True)
    axes.grid(visible=True, which="minor", color="white")
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    title = f"{measure}: {significant.sum()} of {len(rows)}"
    if significant.any():
        best = rows.loc[rows["effect"].abs().where(significant).idxmax()]
        label = best["label"].removeprefix(f"{measure} ").removeprefix("moves ")
        title += f", framed: {label}"
        corner = (cells.columns.get_loc(best["dimension"]), cells.index.get_loc(best["digit"]))
        frame(axes, (corner[0] - 0.5, corner[1] - 0.5), 1, 1, INK)
    axes.set_title(title)
    return shown


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    folder, shown = folder / "perturbation", found.pictures
    if shown is None:  # a notice, since neither git nor dvc plots takes an empty folder
        note = "This network has no decoder, so there is no capsule to draw."
        notice(folder / "overview.png", title=f"{run}: nothing to perturb", note=note)
        return
    added = "standard deviations of the digit's capsules"
    draw_range(
        found, "two_sigma", shown.deviations, folder, run=run, prefix="two_sigma_", added=added
    )
    draw_range(found, "perturbation", shown.values, folder, run=run)
    dimensions = found.tables["perturbation"].drop_duplicates(["digit", "dimension"])
    names = dimensions.groupby("digit")["name"].apply(list)
    for digit, images in shown.grids.items():
        path, two_sigma = folder / f"digit_{digit}.png", shown.reach[digit]
        perturbation_grid(
            images, shown.values, names[digit], path, digit=digit, two_sigma=two_sigma
        )


def draw_range(
    found: Measured, name: str, values: np.ndarray, folder: Path, *, run: str, prefix: str = "",
    added: str = "value"
) -> None:  # fmt: skip
    """The clearest dimension of each measure and all effects of one table."""
    rows, table, path = (
        found.pictures.rows[name],
        found.tables[name],
        folder / f"{prefix}overview.png",
    )
    if rows:
        title = f"{run}: the dimension that changes each measure most clearly"
        perturbation_overview(rows, values, path, title=title, added=added)
    else:
        note = "No dimension of any digit changes a measure visibly and beyond chance."
        notice(path, title=f"{run}: no dimension has an effect", note=note)
    dimensions = table.drop_duplicates(["digit", "dimension"])
    told = f"{(dimensions['name'] != 'none').sum()} of {len(dimensions)} dimensions"
    labels = table.assign(label=[effect_words(row) for _, row in table.iterrows()])
    title = f"{run}: {told} change the shape; coloured where it is visible and beyond chance"
    effects(labels, folder / f"{prefix}effects.png", title=title)
