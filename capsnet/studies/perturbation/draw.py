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
from capsnet.data.registry import worded
from capsnet.plots import canvas
from capsnet.plots.canvas import GAP, LINE, NOUN
from capsnet.plots.pictures import LETTER, cut, notice
from capsnet.studies.perturbation.effects import TONES, effect_words
from capsnet.studies.perturbation.measure import Shown
from capsnet.studies.registry import Measured

COLORS = ["#00412F", canvas.GREEN, "#FFFFFF", canvas.PURPLE, "#4A1042"]
CHANGES = LinearSegmentedColormap.from_list("changes", COLORS)
STRONGEST = 3  # typical changes at which the colours end
LEFT = 316  # pixels, for the names of the rows, at least
NUMBER = 100  # pixels, for a number above a column
ROW = 22  # pixels, least height of a class in a panel


def sweeps(
    rows: Sequence[np.ndarray], values: np.ndarray, path: Path, *, names: Sequence[str],
    title: str, largest: int, added: str = "value", left_out: str = ""
) -> None:  # fmt: skip
    """Figure 4: named rows of reconstructions [num_values, (c,) h, w], at most `largest` screen
    pixels a pixel; `added` is what the values count, `left_out` a sentence about other rows.
    """
    head = LINE + GAP
    height, width = rows[0].shape[-2:]
    letters = max(len(line) for name in names for line in worded(name, NOUN.get()).splitlines())
    left = max(LEFT, LETTER * letters + GAP)
    room = canvas.WIDTH - 2 * canvas.MARGIN - LEFT
    largest = max(largest, NUMBER // width)  # columns as wide as their numbers
    scale = int(np.clip((room // len(values) - GAP) // width, 1, largest))
    across, down = scale * width + GAP, scale * height + GAP
    note = f"Columns: {added} added to the dimension"
    note += "; framed: unperturbed. " if np.isclose(values, 0).any() else ". "
    note += "Number: change from the first to the last column, mean over the test digits (a typical"
    note += f" one is shown). {left_out}"
    size = {"width": left + len(values) * across, "height": head + len(rows) * down}
    with canvas.sheet(path, title=title, note=note, **size) as axes:
        for column, value in enumerate(values):
            x = left + column * across
            text = f"{round(float(value), 3):+g}".replace("-", "\N{MINUS SIGN}")
            if np.isclose(value, 0):
                text, frame_height = "0", len(rows) * down - GAP
                canvas.frame(axes, (x, head), scale * width, frame_height, canvas.BLUE)
            axes.text(x + scale * width / 2, LINE, text, ha="center", va="bottom")
        canvas.tiles(axes, rows, left, head, scale)
        for row, name in enumerate(names):
            axes.text(0, head + (row + 0.5) * down, name, va="center", linespacing=1.3)


def effects(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """A panel for each measure with a cell for each dimension of each digit, from the rows (digit,
    dimension, measure, effect, significant, label); only significant effects are coloured.

    Measures without a significant effect are left out; without any there is a notice.
    """
    clear = table["significant"].astype(bool).groupby(table["measure"], sort=False).any()
    measures = list(clear.index[clear])
    unchanged = " or ".join(clear.index[~clear]).replace("_", " ")
    note = f"No dimension changes {unchanged} visibly and significantly." if unchanged else ""
    if not measures:
        notice(path, title=title, note=note)
        return
    num_rows = -(-len(measures) // 2)
    panel = max(430, 150 + ROW * table["digit"].nunique())
    height = 180 + panel * num_rows + canvas.LINE * bool(note)
    with canvas.chart(path, height=height, title=title, note=note) as figure:
        panels = figure.subplots(num_rows, 2, sharex=True, sharey=True, squeeze=False)
        for place, measure in enumerate(measures):
            axes = panels.flat[place]
            shown = _panel(axes, table[table["measure"] == measure], measure.replace("_", " "))
            axes.set_xlabel("dimension" if place + 2 >= len(measures) else None)
            axes.tick_params(labelbottom=place + 2 >= len(measures))
            axes.set_ylabel("digit" if place % 2 == 0 else None)
        for axes in panels.flat[len(measures) :]:
            axes.set_visible(False)
        bar = figure.colorbar(shown, ax=panels, extend="both", aspect=50, pad=0.01)
        bar.set_label("change / typical change")
        bar.outline.set_visible(False)


def _panel(axes: Axes, rows: pd.DataFrame, measure: str) -> AxesImage:
    """One measure, [digit, dimension]; the title counts the coloured cells."""
    significant = rows["significant"].astype(bool)
    coloured = rows.assign(effect=rows["effect"].where(significant))
    cells = coloured.pivot(index="digit", columns="dimension", values="effect").astype(float)
    cells = cells.reindex(rows["digit"].unique())  # pivot sorts names
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


def draw(found: Measured, folder: Path, config: RunConfig) -> None:
    folder, shown, run = folder / "perturbation", found.pictures, config.title
    if shown is None:  # neither git nor DVC keeps an empty folder
        note = "This network has no decoder, so no capsule can be drawn."
        notice(folder / "overview.png", title=f"{run}: nothing to perturb", note=note)
        return
    reach = config.perturb.range
    draw_table(found, "perturbation", folder, run=run, moved=f"moved by up to ±{reach:g}")
    draw_table(found, "two_sigma", folder, run=run, moved="moved by up to ±2 standard deviations")
    dimensions = found.tables["perturbation"].drop_duplicates(["digit", "dimension"])
    for name, table in dimensions.groupby("digit", sort=False):
        path = folder / f"digit_{found.classes.index(name)}.png"
        draw_digit(table, shown, path, title=f"{run}: digit {name}")


def draw_digit(dimensions: pd.DataFrame, shown: Shown, path: Path, *, title: str) -> None:
    """Figure 4 of one digit: dimensions with a visible, significant effect. No figure without."""
    path.unlink(missing_ok=True)
    digit, clear = dimensions["digit"].iloc[0], dimensions[dimensions["name"] != "none"]
    if clear.empty:
        return
    without = dimensions.loc[dimensions["name"] == "none", "dimension"]
    left_out = f"No visible change: dimensions {', '.join(map(str, without))}."
    places = list(clear["dimension"])
    reach = shown.two_sigma[digit]
    pairs = zip(places, clear["name"], strict=True)
    what = "tones" if clear["name"].str.startswith(tuple(TONES)).all() else "shape"
    names = [f"dim {place}, 2 sd: {reach[place]:.2f}\n{name}" for place, name in pairs]
    sweeps(
        shown.grids[digit][places],
        shown.values,
        path,
        names=names,
        title=f"{title}, {len(clear)} of {len(dimensions)} dimensions change its {what}",
        largest=4,
        left_out=left_out if len(without) else "",
    )


def draw_table(found: Measured, name: str, folder: Path, *, run: str, moved: str) -> None:
    """The dimension with the largest effect on each measure, and all effects of one table."""
    values, added, prefix = found.pictures.values, "value", ""
    if name == "two_sigma":
        values, prefix = found.pictures.deviations, "two_sigma_"
        added = "standard deviations of the digit's capsules"
    rows, table = found.pictures.rows[name], found.tables[name]
    path = folder / f"{prefix}overview.png"
    if rows:
        title = f"{run}: largest effect on each measure, dimensions {moved}"
        names = [f"digit {cut(row.digit)}, dim {row.dimension}\n{row.name}" for row in rows]
        images = [row.images for row in rows]
        sweeps(images, values, path, names=names, title=title, largest=5, added=added)
    else:
        note = "No dimension of any digit has a visible and significant effect."
        notice(path, title=f"{run}: no dimension has an effect, {moved}", note=note)
    dimensions = table.drop_duplicates(["digit", "dimension"])
    counts = f"{(dimensions['name'] != 'none').sum()} of {len(dimensions)} dimensions"
    labels = table.assign(label=[effect_words(row) for _, row in table.iterrows()])
    what = "tones" if table["measure"].isin(TONES).all() else "shape"
    title = f"{run}: {counts} change the {what}, {moved}; coloured: significant"
    effects(labels, folder / f"{prefix}effects.png", title=title)
