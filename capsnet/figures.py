"""Every picture of the reports: arrays and tables in, one PNG file out (the only matplotlib file).

After Sabour et al. 2017: Figure 3 (`reconstructions`), Figure 4 (`perturbation_grid`), Figure 5
(`overlaid_reconstructions`), Figure A.2 (`training_curve`); the others are ours. Unlike the paper,
digits are white on black, colours are Okabe and Ito's, which colour-blind readers can tell apart,
and orange means a mistake everywhere. The pictures of digits are laid out in whole pixels, each
pixel of a digit a square block. The same input gives the same bytes, whatever the user's settings.
"""

import itertools
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import LogLocator

DPI, WIDTH, MARGIN, GAP, GROUP_GAP = 200, 1920, 28, 8, 24  # dots per inch, then pixels
LINE, TITLE_LINE = 38, 48  # pixels from one line of text to the next
MOST_COLUMNS = 12

INK, GREY, PALE = "#222222", "#666666", "#EDEDED"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
FIRST_DIGIT = np.array([0.12, 0.92, 0.30])  # a light green ...
SECOND_DIGIT = np.array([0.88, 0.08, 0.40])  # ... and a dark red: both together are pale yellow
ERRORS = LinearSegmentedColormap.from_list("errors", ["white", "#F6C8A0", ORANGE, "#7A3000"])

STYLE = {
    "figure.dpi": DPI,
    "savefig.dpi": "figure",
    "font.size": 9.5,
    "figure.titlesize": 12.5,
    "figure.titleweight": "bold",
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "image.interpolation": "nearest",
}


class Reconstruction(NamedTuple):
    """One column of Figure 3: images [h, w] and the digits (label, prediction, decoded)."""

    image: np.ndarray
    target: np.ndarray
    reconstruction: np.ndarray
    label: int
    prediction: int
    decoded: int


class OverlaidReconstruction(NamedTuple):
    """One column of Figure 5: the overlapping digits [h, w], their sources and their
    reconstructions [2, h, w]; `decoded` is the "correct" pair, the network's "wrong" prediction,
    or holds a digit that is "neither" label nor prediction (`case`)."""

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
    """Pictures below each other; columns of unequal `group` stand apart."""

    heading: str
    color: str
    group: int
    pictures: Sequence[np.ndarray]


def training_curve(curve: pd.DataFrame, path: Path, *, title: str) -> None:
    """Loss parts and validation error (percent) against the number of examples seen."""
    in_millions = curve["examples"].max() >= 1e6
    examples = curve["examples"] / (1e6 if in_millions else 1e3)
    parts = {"classification": ("classification_loss", BLUE, "-")}
    if (curve["reconstruction_loss"].fillna(0) != 0).any():
        parts["reconstruction"] = ("reconstruction_loss", GREEN, "--")
        parts = {"total": ("loss", INK, "-"), **parts}
    with chart(path, height=760, title=title) as figure:
        loss_axes, error_axes = figure.subplots(1, 2)
        for name, (column, color, line) in parts.items():
            positive = curve[column].where(curve[column] > 0)  # a log axis has no zero
            loss_axes.plot(examples, positive, line, color=color, label=name)
        loss_axes.set_title("Training loss" if len(parts) > 1 else "Training loss, classification")
        loss_axes.set_ylabel("loss per example")
        log_scale(loss_axes, curve[[column for column, *_ in parts.values()]].to_numpy())
        if len(parts) > 1:
            loss_axes.legend()
        error = curve["validation_error"].dropna()
        error_axes.set_title(
            f"Validation error, {error.iloc[-1]:.2f} % at the end"
            if len(error)
            else "Validation error was not measured"
        )
        error_axes.set_ylabel("validation error (%)")
        error_axes.plot(examples[error.index], error, "o-", color=ORANGE, markersize=4)
        if len(error) and error.max() > 10 * error.min() > 0:
            log_scale(error_axes, error.to_numpy())
        elif len(error):
            error_axes.set_ylim(0, max(1.1 * error.max(), 0.1))
        for axes in (loss_axes, error_axes):
            axes.set_xlabel(f"examples seen ({'millions' if in_millions else 'thousands'})")
            axes.set_xlim(0, examples.max() * 1.02)
            axes.grid(visible=True)


def reconstructions(examples: Sequence[Reconstruction], path: Path, *, title: str) -> None:
    """Figure 3: inputs above their reconstructions, failures (label != prediction) to the right."""
    columns = [
        Column(
            heading=f"({one.label}, {one.prediction}, {one.decoded})",
            color=ORANGE if one.label != one.prediction else INK,
            group=int(one.label != one.prediction),
            pictures=[one.image, one.reconstruction],
        )
        for one in examples
    ]
    caption = "(label, prediction, digit whose capsule is decoded)"
    if any(column.group for column in columns):
        caption += "; in orange, to the right: failures of the network"
    picture_columns(columns, path, names=["input", "recon-\nstruction"], title=title, note=caption)


def overlaid_reconstructions(
    examples: Sequence[OverlaidReconstruction], path: Path, *, title: str
) -> None:
    """Figure 5: overlapping digits, the two sources and the two reconstructions in two colours."""
    cases = {"correct": ("R", INK), "wrong": ("R:P", ORANGE), "neither": ("*R", PURPLE)}
    columns = [
        Column(
            heading=f"{cases[one.case][0]}:{pair(one.decoded)}\nL:{pair(one.labels)}",
            color=cases[one.case][1],
            group=list(cases).index(one.case),
            pictures=[one.image, overlay(one.sources), overlay(one.reconstructions)],
        )
        for one in examples
    ]
    present = {one.case for one in examples}
    caption = "L: the two labels; R: the two digits whose capsules are decoded"
    if "wrong" in present:
        caption += "; P: here the network's wrong prediction"
    if "neither" in present:
        caption += "; *: one of them neither label nor prediction, so it should stay empty"
    key = {
        "first digit of the pair": FIRST_DIGIT,
        "second digit": SECOND_DIGIT,
        "both": np.clip(FIRST_DIGIT + SECOND_DIGIT, 0, 1),
    }
    names = ["input", "true\ndigits", "recon-\nstructions"]
    picture_columns(columns, path, names=names, title=title, note=caption, key=key)


def transformed(
    images: np.ndarray,
    transformed_images: np.ndarray,
    labels: np.ndarray,
    predictions: np.ndarray,
    path: Path,
    *,
    title: str,
) -> None:
    """Each digit [n, h, w] above its transformed self, which is what the network was asked."""
    columns = [
        Column(f"({label}, {prediction})", INK if label == prediction else ORANGE, 0, pictures)
        for *pictures, label, prediction in zip(
            images, transformed_images, labels, predictions, strict=True
        )
    ]
    caption = "(label, prediction for the transformed digit)"
    if (np.asarray(labels) != np.asarray(predictions)).any():
        caption += "; framed in orange: wrong predictions"
    picture_columns(
        columns, path, names=["original", "trans-\nformed"], title=title, note=caption, framed=True
    )


def perturbation_grid(
    images: np.ndarray, values: np.ndarray, changes: np.ndarray, path: Path, *, digit: int
) -> None:
    """Figure 4: reconstructions [num_dimensions, num_values, h, w], one dimension a row."""
    names = [f"dim {dim}\nchange {change:.0%}" for dim, change in enumerate(changes)]
    title = f"Digit {digit}: what each dimension of its capsule does to the reconstruction"
    sweeps(images, names, values, path, title=title, largest=4)


def perturbation_overview(
    rows: Sequence[PerturbationRow], values: np.ndarray, path: Path, *, title: str
) -> None:
    """One row per digit: the sweep of its most telling dimension."""
    names = [f"digit {row.digit}, dim {row.dimension}\nchange {row.change:.0%}" for row in rows]
    sweeps([row.images for row in rows], names, values, path, title=title, largest=5)


def confusion(counts: np.ndarray, path: Path, *, title: str) -> None:
    """Counts [n, n], true class by predicted class; only mistakes are coloured."""
    counts = np.asarray(counts)
    wrong = np.where(np.eye(len(counts), dtype=bool), np.nan, counts)
    missed, total = np.nansum(wrong, axis=1), counts.sum(axis=1)
    heat_map(
        wrong,
        np.where(counts == 0, "", np.vectorize("{:,}".format, otypes=[object])(counts)),
        path,
        title=title,
        labels=("predicted digit (grey: right; orange: number of mistakes)", "true digit"),
        sums=[f"{m:,.0f} of {t:,.0f}" for m, t in zip(missed, total, strict=True)],
        sums_label="mistakes per true digit",
    )


def pair_errors(error: np.ndarray, path: Path, *, title: str) -> None:
    """Error [n, n] in percent by unordered pair of classes; NaN where there is no such pair."""
    error = np.asarray(error, dtype=float)
    heat_map(
        error,
        np.where(np.isnan(error), "", np.vectorize("{:.1f}".format, otypes=[object])(error)),
        path,
        title=title,
        labels=("the other digit of the pair (in the cells: error in %)", "one digit of the pair"),
        sums=[f"{np.nanmean(row):.1f} %" if np.isfinite(row).any() else "" for row in error],
        sums_label="mean error of its pairs",
    )


def error_by_overlap(table: pd.DataFrame, path: Path, *, title: str) -> None:
    """Error (percent, 95 % interval) of pairs, binned by how much the two digits overlap."""
    position = np.arange(len(table))
    below, above = table["error"] - table["error_low"], table["error_high"] - table["error"]
    names = [
        f"{100 * row.overlap_low:.3g} to {100 * row.overlap_high:.3g}\n{row.pairs:,.0f}"
        for row in table.itertuples()
    ]
    with chart(path, height=860, title=title) as figure:
        axes = figure.subplots()
        axes.errorbar(
            position, table["error"], [below.clip(lower=0), above.clip(lower=0)],
            fmt="o", color=BLUE, markersize=7, capsize=5, elinewidth=1.8, capthick=1.8,
        )  # fmt: skip
        axes.set_xticks(position, names)
        axes.set_xlim(-0.6, len(table) - 0.4)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("overlap of the two digits (%); below it, the number of pairs")
        axes.set_ylabel("error (%), with 95 % interval")
        axes.grid(visible=True, axis="y")


def picture_columns(
    columns: Sequence[Column],
    path: Path,
    *,
    names: Sequence[str],
    title: str,
    note: str,
    key: dict[str, np.ndarray] | None = None,
    framed: bool = False,
) -> None:
    """Draw columns sorted by group, in as many bands as they need, with one name per picture row;
    `key` says what colours mean, `framed` draws a frame around the last picture of a warning."""
    if not columns:
        raise ValueError(f"{path}: no examples to draw, but the figure needs at least one")
    columns = sorted(columns, key=lambda column: column.group)
    num_bands = -(-len(columns) // MOST_COLUMNS)
    per_band = -(-len(columns) // num_bands)
    left, head = 160, LINE * (columns[0].heading.count("\n") + 1) + GAP
    height, width = columns[0].pictures[0].shape
    groups_gap = GROUP_GAP * (len({column.group for column in columns}) - 1)
    scale = largest_scale(width, per_band, room=WIDTH - 2 * MARGIN - left - groups_gap, largest=5)
    band = head + len(names) * (scale * height + GAP) + 2 * GAP
    with sheet(path, title=title, note=note, height=num_bands * band + LINE * bool(key)) as axes:
        for index, column in enumerate(columns):
            row, slot = divmod(index, per_band)
            before = columns[row * per_band : index + 1]
            changes = sum(a.group != b.group for a, b in itertools.pairwise(before))
            x = left + slot * (scale * width + GAP) + GROUP_GAP * changes
            y = row * band + head
            if slot and column.group != columns[index - 1].group:
                line_x = x - (GAP + GROUP_GAP) / 2
                axes.plot([line_x] * 2, [y - head, y - head + band - 3 * GAP], color=GREY, lw=1)
            axes.text(
                x + scale * width / 2, y - GAP, column.heading, color=column.color,
                ha="center", va="bottom", size=9, linespacing=1.1,
            )  # fmt: skip
            for place, (name, picture) in enumerate(zip(names, column.pictures, strict=True)):
                top = y + place * (scale * height + GAP)
                tile(axes, picture, x, top, scale)
                if slot == 0:
                    axes.text(0, top + scale * height / 2, name, va="center", color=GREY)
            if framed and column.color != INK:
                frame(axes, x, top, scale * width, scale * height, column.color)
        if key:
            handles = [Patch(facecolor=color, label=name) for name, color in key.items()]
            corner = {"bbox_to_anchor": (left, num_bands * band + LINE)}
            axes.legend(
                handles=handles, ncols=len(key), loc="lower left", borderpad=0, borderaxespad=0,
                bbox_transform=axes.transData, **corner,
            )  # fmt: skip


def sweeps(
    images: Sequence[np.ndarray],
    names: Sequence[str],
    values: np.ndarray,
    path: Path,
    *,
    title: str,
    largest: int,
) -> None:
    """Rows of reconstructions [num_values, h, w] under the values added to one dimension."""
    left, head = 230, LINE + GAP
    height, width = images[0].shape[1:]
    room = WIDTH - 2 * MARGIN - left
    scale = largest_scale(width, len(values), room=room, largest=largest)
    across, down = scale * width + GAP, scale * height + GAP
    caption = (
        "Columns: what is added to the dimension; framed: nothing added. Change: mean pixel change "
        "over the row, relative to the digit's ink."
    )
    body = head + len(images) * down
    with sheet(path, title=title, note=caption, height=body) as axes:
        for column, value in enumerate(values):
            unperturbed = np.isclose(value, 0)
            text = (
                "0"
                if unperturbed
                else f"{round(float(value), 3):+g}".replace("-", "\N{MINUS SIGN}")
            )
            x = left + column * across
            weight = "bold" if unperturbed else "normal"
            axes.text(x + scale * width / 2, LINE, text, ha="center", va="bottom", weight=weight)
            if unperturbed:
                frame(axes, x, head, scale * width, len(images) * down - GAP, ORANGE)
        for row, (name, sweep) in enumerate(zip(names, images, strict=True)):
            y = head + row * down
            axes.text(0, y + scale * height / 2, name, va="center", linespacing=1.3)
            for column, picture in enumerate(sweep):
                tile(axes, picture, left + column * across, y, scale)


def heat_map(
    values: np.ndarray,
    texts: np.ndarray,
    path: Path,
    *,
    title: str,
    labels: tuple[str, str],
    sums: Sequence[str],
    sums_label: str,
) -> None:
    """A square table [n, n] shaded by its values (NaN is grey), with a column of sums beside it."""
    num_classes = len(values)
    most = np.nanmax(values, initial=0) or 1.0
    size = min(9.5, 110 / num_classes)
    with chart(path, height=1240, title=title) as figure:
        axes = figure.subplots()
        axes.set_facecolor(PALE)
        axes.imshow(values, cmap=ERRORS, vmin=0, vmax=most, aspect="auto")
        for row, column in np.ndindex(values.shape):
            color = "white" if values[row, column] > 0.55 * most else INK
            axes.text(
                column, row, texts[row, column], color=color, size=size, ha="center", va="center"
            )
        axes.set_xticks(range(num_classes))
        axes.set_yticks(range(num_classes))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        beside = axes.secondary_yaxis("right")
        beside.set_yticks(range(num_classes), sums)
        beside.set_ylabel(sums_label)
        for part in (axes, beside):
            part.tick_params(length=0)
            part.spines[:].set_visible(False)


def pair(digits: tuple[int, int]) -> str:
    return f"({digits[0]},{digits[1]})"


def overlay(two: np.ndarray) -> np.ndarray:
    """Two grey images [2, h, w] as one coloured image [h, w, 3]: light adds up."""
    colored = two[0][..., None] * FIRST_DIGIT + two[1][..., None] * SECOND_DIGIT
    return colored.clip(0, 1)


def log_scale(axes: Axes, values: np.ndarray) -> None:
    """A log axis with plain numbers, and enough of them where it spans little."""
    positive = values[values > 0]
    axes.set_yscale("log")
    if positive.size:
        wide = positive.max() > 100 * positive.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def largest_scale(width: int, num_columns: int, *, room: int, largest: int) -> int:
    """Screen pixels per pixel of a picture, so that a row of them fits the room."""
    return int(np.clip((room // num_columns - GAP) // width, 1, largest))


def tile(axes: Axes, picture: np.ndarray, x: int, y: int, scale: int) -> None:
    height, width = picture.shape[:2]
    extent = (x, x + scale * width, y + scale * height, y)
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")


def frame(axes: Axes, x: int, y: int, width: int, height: int, color: str) -> None:
    axes.add_patch(Rectangle((x, y), width, height, fill=False, lw=2.2, color=color, zorder=3))


@contextmanager
def sheet(path: Path, *, title: str, note: str, height: int) -> Iterator[Axes]:
    """An axes measured in pixels for pictures: (0, 0) is the top left corner below the note."""
    titles, notes = textwrap.wrap(title, 78), textwrap.wrap(note, 118)
    head = MARGIN + TITLE_LINE * len(titles) + LINE * len(notes) + MARGIN
    with canvas(path, height=head + height + MARGIN) as figure:
        limits = {"xlim": (-MARGIN, WIDTH - MARGIN), "ylim": (height + MARGIN, -head)}
        axes = figure.add_axes((0, 0, 1, 1), **limits)
        axes.axis("off")
        strong = {"size": STYLE["figure.titlesize"], "weight": STYLE["figure.titleweight"]}
        axes.text(0, MARGIN - head, "\n".join(titles), va="top", **strong)
        below = MARGIN - head + TITLE_LINE * len(titles)
        axes.text(0, below, "\n".join(notes), va="top", color=GREY)
        yield axes


@contextmanager
def chart(path: Path, *, height: int, title: str) -> Iterator[Figure]:
    """A figure for axes with ticks, laid out by matplotlib."""
    with canvas(path, height=height, layout="constrained") as figure:
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
        wrapped = "\n".join(textwrap.wrap(title, 78))
        figure.suptitle(wrapped, x=MARGIN / WIDTH, horizontalalignment="left")
        yield figure


@contextmanager
def canvas(path: Path, *, height: int, layout: str | None = None) -> Iterator[Figure]:
    """A figure of `height` pixels, saved when the block ends: written aside, then renamed."""
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(WIDTH / DPI, height / DPI), layout=layout)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(path.name + ".part")
        figure.savefig(aside, format="png", metadata={"Software": None})
        aside.replace(path)
