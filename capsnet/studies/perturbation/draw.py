"""Figure 4 of Sabour et al. 2017 with numbers, and the effects of all dimensions on one page.

Purple is an increase, green a decrease.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.image import AxesImage

from capsnet.config import RunConfig
from capsnet.plots import canvas
from capsnet.plots.canvas import GAP, LINE
from capsnet.plots.pictures import notice
from capsnet.studies.perturbation.effects import effect_words
from capsnet.studies.registry import Measured

COLORS = ["#00412F", canvas.GREEN, "#FFFFFF", canvas.PURPLE, "#4A1042"]
CHANGES = LinearSegmentedColormap.from_list("changes", COLORS)
STRONGEST = 3  # typical changes at which the colours end
LEFT = 316  # pixels, for the names of the rows


def sweeps(
    rows: Sequence[np.ndarray], values: np.ndarray, path: Path, *, names: Sequence[str],
    title: str, largest: int, added: str = "value"
) -> None:  # fmt: skip
    """Figure 4: named rows of reconstructions [num_values, h, w], at most `largest` screen pixels
    a pixel; `added` is what the values count.
    """
    head = LINE + GAP
    height, width = rows[0].shape[1:]
    room = canvas.WIDTH - 2 * canvas.MARGIN - LEFT
    scale = canvas.largest_scale(width, len(values), room=room, largest=largest)
    across, down = scale * width + GAP, scale * height + GAP
    note = f"Columns: {added} added to the dimension"
    note += "; framed: unperturbed. " if np.isclose(values, 0).any() else ". "
    note += "Number: change from the first to the last column, mean over the test digits (a typical"
    note += " one is shown); none: no visible change of any measure."
    size = {"width": LEFT + len(values) * across, "height": head + len(rows) * down}
    with canvas.sheet(path, title=title, note=note, **size) as axes:
        for column, value in enumerate(values):
            x = LEFT + column * across
            text = f"{round(float(value), 3):+g}".replace("-", "\N{MINUS SIGN}")
            if np.isclose(value, 0):
                text, frame_height = "0", len(rows) * down - GAP
                canvas.frame(axes, (x, head), scale * width, frame_height, canvas.BLUE)
            axes.text(x + scale * width / 2, LINE, text, ha="center", va="bottom")
        canvas.tiles(axes, rows, LEFT, head, scale)
        for row, name in enumerate(names):
            axes.text(0, head + (row + 0.5) * down, name, va="center", linespacing=1.3)


def effects(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """A panel for each measure with a cell for each dimension of each digit, from the rows (digit,
    dimension, measure, effect, significant, label); only significant effects are coloured.
    """
    measures = list(dict.fromkeys(table["measure"]))
    num_rows = -(-len(measures) // 2)
    with canvas.chart(path, height=180 + 430 * num_rows, title=title) as figure:
        panels = figure.subplots(num_rows, 2, sharex=True, sharey=True, squeeze=False)
        for place, measure in enumerate(measures):
            axes = panels.flat[place]
            shown = _panel(axes, table[table["measure"] == measure], measure.replace("_", " "))
            axes.set_xlabel("dimension" if place // 2 == num_rows - 1 else None)
            axes.set_ylabel("digit" if place % 2 == 0 else None)
        for axes in panels.flat[len(measures) :]:
            axes.set_visible(False)
        bar = figure.colorbar(shown, ax=panels, extend="both", aspect=50, pad=0.01)
        bar.set_label("change over the sweep, relative to the measure's typical change")
        bar.outline.set_visible(False)


def _panel(axes: Axes, rows: pd.DataFrame, measure: str) -> AxesImage:
    """One measure, [digit, dimension]; the title counts the coloured cells."""
    significant = rows["significant"].astype(bool)
    coloured = rows.assign(effect=rows["effect"].where(significant))
    cells = coloured.pivot(index="digit", columns="dimension", values="effect").astype(float)
    shown = axes.imshow(cells, cmap=CHANGES, vmin=-STRONGEST, vmax=STRONGEST, aspect="auto")
    axes.set_facecolor(canvas.PALE)
    canvas.cell_grid(axes, cells.columns, cells.index, color="white")
    title = f"{measure}: {significant.sum()} of {len(rows)}"
    if significant.any():
        best = rows.loc[rows["effect"].abs().where(significant).idxmax()]
        label = best["label"].removeprefix(f"{measure} ").removeprefix("moves ")
        title += f", framed: {label}"
        x, y = cells.columns.get_loc(best["dimension"]), cells.index.get_loc(best["digit"])
        canvas.frame(axes, (x - 0.5, y - 0.5), 1, 1, canvas.INK)
    axes.set_title(title)
    return shown


def draw(found: Measured, folder: Path, *, run: str, config: RunConfig) -> None:
    folder, shown = folder / "perturbation", found.pictures
    if shown is None:  # neither git nor DVC keeps an empty folder
        note = "This network has no decoder, so no capsule can be drawn."
        notice(folder / "overview.png", title=f"{run}: nothing to perturb", note=note)
        return
    draw_table(found, "perturbation", folder, run=run)
    draw_table(found, "two_sigma", folder, run=run)
    dimensions = found.tables["perturbation"].drop_duplicates(["digit", "dimension"])
    for digit, names in dimensions.groupby("digit")["name"]:
        pairs = enumerate(zip(names, shown.two_sigma[digit], strict=True))
        rows = [f"dim {d}, 2 sd: {reach:.2f}\n{name}" for d, (name, reach) in pairs]
        path, title = folder / f"digit_{digit}.png", f"Digit {digit}: dimensions of its capsule"
        sweeps(shown.grids[digit], shown.values, path, names=rows, title=title, largest=4)


def draw_table(found: Measured, name: str, folder: Path, *, run: str) -> None:
    """The dimension with the largest effect on each measure, and all effects of one table."""
    values, added, prefix = found.pictures.values, "value", ""
    if name == "two_sigma":
        values, prefix = found.pictures.deviations, "two_sigma_"
        added = "standard deviations of the digit's capsules"
    rows, table = found.pictures.rows[name], found.tables[name]
    path = folder / f"{prefix}overview.png"
    if rows:
        title = f"{run}: the dimension with the largest effect on each measure"
        names = [f"digit {row.digit}, dim {row.dimension}\n{row.name}" for row in rows]
        images = [row.images for row in rows]
        sweeps(images, values, path, names=names, title=title, largest=5, added=added)
    else:
        note = "No dimension of any digit has a visible and significant effect."
        notice(path, title=f"{run}: no dimension has an effect", note=note)
    dimensions = table.drop_duplicates(["digit", "dimension"])
    counts = f"{(dimensions['name'] != 'none').sum()} of {len(dimensions)} dimensions"
    labels = table.assign(label=[effect_words(row) for _, row in table.iterrows()])
    title = f"{run}: {counts} change the shape; coloured: significant"
    effects(labels, folder / f"{prefix}effects.png", title=title)
