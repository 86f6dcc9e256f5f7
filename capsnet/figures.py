"""Every picture of the reports: arrays and tables in, one PNG file out (the only matplotlib file).

After Sabour et al. 2017: Figure 3 (`reconstructions`), Figure 4 (`perturbation_grid`) and Figure 5
(`overlaid_reconstructions`); the others are ours. Unlike the paper, digits are white on black,
colours are Okabe and Ito's, which colour-blind readers can tell apart, and orange always means
error. Images are floats in [0, 1]; each of their pixels becomes a square of whole screen pixels.
The same input gives the same bytes, whatever the user's settings.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator
from PIL import Image

WIDTH, SHEET_WIDTH, MARGIN, GAP, GROUP_GAP = 1920, 1600, 28, 8, 24  # pixels; a sheet may be wider
DPI = 256  # a power of two: pixels / DPI * DPI is exact
LINE, TITLE_LINE = 38, 48  # pixels from one line of text to the next
MOST_COLUMNS = 12

INK, GREY, PALE = "#222222", "#666666", "#E8E8E8"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
FIRST_DIGIT = np.array([0.12, 0.92, 0.30])  # a light green ...
SECOND_DIGIT = np.array([0.88, 0.08, 0.40])  # ... and a dark red: together a pale yellow
ERRORS = LinearSegmentedColormap.from_list("errors", ["white", "#F6C8A0", ORANGE, "#7A3000"])
BOLD = {"size": 9.8, "weight": "bold"}

STYLE = {
    "figure.dpi": DPI, "font.size": 7.5, "text.color": INK, "image.interpolation": "nearest",
    "axes.titlesize": 8.2, "axes.titlelocation": "left", "axes.axisbelow": True,
    "axes.edgecolor": GREY, "axes.labelcolor": INK, "xtick.color": GREY, "ytick.color": GREY,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
    "grid.color": PALE, "grid.linewidth": 0.6, "lines.linewidth": 1.4, "lines.markersize": 4,
    "errorbar.capsize": 4,
}  # fmt: skip


class Reconstruction(NamedTuple):
    """One column of Figure 3: images [h, w] and three digits."""

    image: np.ndarray
    reconstruction: np.ndarray
    label: int
    prediction: int
    decoded: int


class OverlaidReconstruction(NamedTuple):
    """One column of Figure 5: the image [h, w], what it is made of and what was decoded [2, h, w].
    Decoded are the "correct" digits, the network's "wrong" ones, or one that is "neither"."""

    image: np.ndarray
    sources: np.ndarray
    reconstructions: np.ndarray
    labels: tuple[int, int]
    decoded: tuple[int, int]
    case: str


class PerturbationRow(NamedTuple):
    """One dimension of one digit's capsule: its change (fraction) and images [num_values, h, w]."""

    digit: int
    dimension: int
    change: float
    images: np.ndarray


class Column(NamedTuple):
    """Pictures below each other under a heading; groups of columns stand apart."""

    heading: str
    color: str
    group: int
    pictures: Sequence[np.ndarray]


LOSS_NAMES = {
    "loss": "total",
    "classification_loss": "classification",
    "reconstruction_loss": "reconstruction, before its weight",
}


def training_curve(curve: pd.DataFrame, path: Path, *, title: str) -> None:
    """Loss parts and validation error (percent) against the number of examples seen."""
    unit, unit_name = (1e6, "millions") if curve["examples"].max() >= 1e6 else (1e3, "thousands")
    examples, error = curve["examples"] / unit, curve["validation_error"].dropna()
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
        errors.plot(examples[error.index], error, "o-", color=ORANGE)
        if len(error) and error.max() > 10 * error.min() > 0:
            log_scale(errors, error.to_numpy())
        else:
            errors.set_ylim(0, 1.1 * error.max() if error.any() else 1)
        found = f", {error.iloc[-1]:.2f} % at the end" if len(error) else " was not measured"
        errors.set(title="Validation error" + found, ylabel="validation error (%)")
        for axes in (losses, errors):
            axes.set(xlabel=f"examples seen ({unit_name})", xlim=(0, 1.02 * examples.max()))
            axes.grid(visible=True)


def reconstructions(examples: Sequence[Reconstruction], path: Path, *, title: str) -> None:
    """Figure 3: inputs above their reconstructions, failures (label != prediction) to the right."""
    columns = []
    for one in examples:
        failed = one.label != one.prediction
        heading = f"({one.label}, {one.prediction}, {one.decoded})"
        pictures = [one.image, one.reconstruction]
        columns.append(Column(heading, ORANGE if failed else INK, int(failed), pictures))
    note = "(label, prediction, digit whose capsule is decoded)"
    if any(column.group for column in columns):
        note += "; in orange, to the right: failures of the network"
    picture_columns(columns, path, names=["input", "recon-\nstruction"], title=title, note=note)


def overlaid_reconstructions(
    examples: Sequence[OverlaidReconstruction], path: Path, *, title: str
) -> None:
    """Figure 5: overlapping digits, the two sources and the two reconstructions in two colours."""
    cases = {"correct": ("R:", INK), "wrong": ("R:P:", ORANGE), "neither": ("*R:", PURPLE)}
    columns = []
    for one in examples:
        mark, color = cases[one.case]
        heading = "{}({},{})\nL:({},{})".format(mark, *one.decoded, *one.labels)
        pictures = [one.image, overlay(one.sources), overlay(one.reconstructions)]
        columns.append(Column(heading, color, list(cases).index(one.case), pictures))
    note = "L: the two labels; R: the two digits whose capsules are decoded"
    if any(one.case == "wrong" for one in examples):
        note += "; P: the network's wrong prediction is decoded"
    if any(one.case == "neither" for one in examples):
        note += "; *: one of them is neither label nor prediction and should come out empty"
    key = {"first digit": FIRST_DIGIT, "second digit": SECOND_DIGIT}
    key["both"] = np.clip(FIRST_DIGIT + SECOND_DIGIT, 0, 1)
    names = ["input", "true\ndigits", "recon-\nstructions"]
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


def transformed(
    images: np.ndarray, transformed_images: np.ndarray, labels: np.ndarray,
    predictions: np.ndarray, path: Path, *, title: str
) -> None:  # fmt: skip
    """Each digit [n, h, w] above its transformed self, which is what the network was asked."""
    columns = []
    for *pictures, label, prediction in zip(
        images, transformed_images, labels, predictions, strict=True
    ):
        color = INK if label == prediction else ORANGE
        columns.append(Column(f"({label}, {prediction})", color, 0, pictures))
    note = "(label, prediction for the transformed digit)"
    if any(column.color == ORANGE for column in columns):
        note += "; framed in orange: wrong predictions"
    names = ["original", "trans-\nformed"]
    picture_columns(columns, path, names=names, title=title, note=note, framed=True)


def perturbation_grid(
    images: np.ndarray, values: np.ndarray, changes: np.ndarray, path: Path, *, digit: int
) -> None:
    """Figure 4: reconstructions [num_dimensions, num_values, h, w], one dimension a row."""
    names = [f"dim {dim}\nchange {100 * change:.0f} %" for dim, change in enumerate(changes)]
    title = f"Digit {digit}: what each dimension of its capsule changes"
    sweeps(images, values, path, names=names, title=title, largest=4)


def perturbation_overview(
    rows: Sequence[PerturbationRow], values: np.ndarray, path: Path, *, title: str
) -> None:
    """One row per digit: the sweep of its most telling dimension."""
    names = [f"digit {r.digit}, dim {r.dimension}\nchange {100 * r.change:.0f} %" for r in rows]
    sweeps([row.images for row in rows], values, path, names=names, title=title, largest=5)


def notice(path: Path, *, title: str, note: str) -> None:
    """Words in the place of a figure that there is none of, so that the place is not empty."""
    with sheet(path, title=title, note=note, width=SHEET_WIDTH - 2 * MARGIN, height=0):
        pass


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
    """Error (percent, 95 % interval) of pairs, binned by how much the two digits overlap."""
    position, error = np.arange(len(table)), table["error"]
    interval = [(error - table["error_low"]).clip(0), (table["error_high"] - error).clip(0)]
    names = [
        f"{100 * row.overlap_low:.3g} to {100 * row.overlap_high:.3g}\n{row.pairs:,.0f}"
        for row in table.itertuples()
    ]
    with chart(path, height=800, title=title) as figure:
        axes = figure.subplots()
        axes.errorbar(position, error, interval, fmt="o", color=BLUE)
        axes.set_xticks(position, names)
        axes.set_xlim(-0.6, len(table) - 0.4)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("overlap of the two digits (%); below it, the number of pairs")
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
            for (color, form), (name, line) in zip(styles, lines, strict=True):
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


def picture_columns(
    columns: Sequence[Column], path: Path, *, names: Sequence[str], title: str, note: str,
    key: dict[str, np.ndarray] | None = None, framed: bool = False
) -> None:  # fmt: skip
    """Columns sorted by group, in as many bands as they need; `names` are those of the picture
    rows, `key` that of the colours; `framed` frames the last picture of every orange column."""
    if not columns:
        raise ValueError(f"{path}: no examples to draw, but the figure needs at least one")
    columns = sorted(columns, key=lambda column: column.group)
    per_band = -(-len(columns) // -(-len(columns) // MOST_COLUMNS))  # bands of equal length
    bands = [columns[at : at + per_band] for at in range(0, len(columns), per_band)]
    height, width = columns[0].pictures[0].shape
    left, gaps = 160, GROUP_GAP * (len({column.group for column in columns}) - 1)
    scale = largest_scale(width, per_band, room=WIDTH - 2 * MARGIN - left - gaps, largest=5)
    across, down = scale * width + GAP, scale * height + GAP
    head = LINE * (1 + columns[0].heading.count("\n"))
    band_height = head + len(names) * down + 2 * GAP
    size = {"width": left + per_band * across + gaps, "height": len(bands) * band_height}
    with sheet(path, title=title, note=note, key=key, **size) as axes:
        for number, band in enumerate(bands):
            top = number * band_height + head
            for place, name in enumerate(names):
                axes.text(0, top + (place + 0.5) * down, name, va="center", color=GREY)
            x = left
            for index, (_, group) in enumerate(groupby(band, key=lambda column: column.group)):
                if index:
                    ends = (top - head, top + len(names) * down)
                    axes.vlines(x + (GROUP_GAP - GAP) / 2, *ends, color=GREY, linewidth=0.6)
                    x += GROUP_GAP
                for column in group:
                    place = {"ha": "center", "va": "bottom", "size": 7, "linespacing": 1.1}
                    center = x + scale * width / 2
                    axes.text(center, top - GAP, column.heading, color=column.color, **place)
                    for row, picture in enumerate(column.pictures):
                        tile(axes, picture, x, top + row * down, scale)
                    if framed and column.color == ORANGE:
                        corner = (x, top + (len(names) - 1) * down)
                        frame(axes, corner, scale * width, scale * height, ORANGE)
                    x += across


def sweeps(
    rows: Sequence[np.ndarray], values: np.ndarray, path: Path, *, names: Sequence[str],
    title: str, largest: int
) -> None:  # fmt: skip
    """Rows of reconstructions [num_values, h, w] under the values added to one dimension."""
    left, head = 230, LINE + GAP
    height, width = rows[0].shape[1:]
    room = WIDTH - 2 * MARGIN - left
    scale = largest_scale(width, len(values), room=room, largest=largest)
    across, down = scale * width + GAP, scale * height + GAP
    note = "Columns: value added to the dimension"
    note += "; framed: nothing added. " if np.isclose(values, 0).any() else ". "
    note += "Change: how far the ends of a row differ, relative to the digit's ink, "
    note += "mean over several test digits."
    size = {"width": left + len(values) * across, "height": head + len(rows) * down}
    with sheet(path, title=title, note=note, **size) as axes:
        for column, value in enumerate(values):
            x = left + column * across
            text = f"{round(float(value), 3):+g}".replace("-", "\N{MINUS SIGN}")
            if np.isclose(value, 0):
                text = "0"
                frame(axes, (x, head), scale * width, len(rows) * down - GAP, BLUE)
            axes.text(x + scale * width / 2, LINE, text, ha="center", va="bottom")
            for row, pictures in enumerate(rows):
                tile(axes, pictures[column], x, head + row * down, scale)
        for row, name in enumerate(names):
            axes.text(0, head + (row + 0.5) * down, name, va="center", linespacing=1.3)


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


def overlay(two: np.ndarray) -> np.ndarray:
    """Two grey images [2, h, w] as one coloured image [h, w, 3]: light adds up."""
    return np.clip(two[0][..., None] * FIRST_DIGIT + two[1][..., None] * SECOND_DIGIT, 0, 1)


def log_scale(axes: Axes, values: np.ndarray) -> None:
    """A log axis with plain numbers, and enough of them where it spans little."""
    positive = values[values > 0]
    wide = positive.size and positive.max() > 100 * positive.min()
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def largest_scale(width: int, num_columns: int, *, room: int, largest: int) -> int:
    """Screen pixels per pixel of a picture, so that a row of pictures fits the room."""
    return int(np.clip((room // num_columns - GAP) // width, 1, largest))


def tile(axes: Axes, picture: np.ndarray, x: int, y: int, scale: int) -> None:
    extent = (x, x + scale * picture.shape[1], y + scale * picture.shape[0], y)
    shades = np.round(picture * 63) / 63  # as many as the eye can tell, in a smaller file
    axes.imshow(shades, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")


def frame(axes: Axes, corner: tuple[int, int], width: int, height: int, color: str) -> None:
    axes.add_patch(Rectangle(corner, width, height, fill=False, lw=1.8, color=color, zorder=3))


@contextmanager
def sheet(
    path: Path, *, title: str, note: str, width: int, height: int,
    key: dict[str, np.ndarray] | None = None
) -> Iterator[Axes]:  # fmt: skip
    """An axes measured in pixels for pictures: (0, 0) is the top left corner below the note."""
    full_width = max(SHEET_WIDTH, width + 2 * MARGIN)
    titles, notes = textwrap.wrap(title, full_width // 23), textwrap.wrap(note, full_width // 15)
    head = MARGIN + TITLE_LINE * len(titles) + LINE * len(notes) + 2 * GAP
    foot = MARGIN + LINE * bool(key)
    with canvas(path, width=full_width, height=head + height + foot) as figure:
        limits = {"xlim": (-MARGIN, full_width - MARGIN), "ylim": (height + foot, -head)}
        axes = figure.add_axes((0, 0, 1, 1), **limits)
        axes.axis("off")
        axes.text(0, MARGIN - head, "\n".join(titles), va="top", **BOLD)
        below = MARGIN - head + TITLE_LINE * len(titles)
        axes.text(0, below, "\n".join(notes), va="top", color=GREY)
        if key:
            handles = [Patch(facecolor=color, label=name) for name, color in key.items()]
            axes.legend(handles=handles, ncols=len(key), loc="lower left")
        yield axes


@contextmanager
def chart(path: Path, *, height: int, title: str) -> Iterator[Figure]:
    """A figure for axes with ticks, laid out by matplotlib."""
    with canvas(path, width=WIDTH, height=height, layout="constrained") as figure:
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        wrapped = "\n".join(textwrap.wrap(title, WIDTH // 23))
        figure.suptitle(wrapped, x=MARGIN / WIDTH, ha="left", **BOLD)
        yield figure


@contextmanager
def canvas(path: Path, *, width: int, height: int, layout: str | None = None) -> Iterator[Figure]:
    """A figure of so many pixels, saved when the block ends: written aside, then renamed."""
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(width / DPI, height / DPI), layout=layout)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        agg = FigureCanvasAgg(figure)
        agg.draw()
        pixels = Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3])
        few_colors = pixels.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        few_colors.save(aside, format="png", optimize=True)  # half the size, greys exact
        aside.replace(path)
