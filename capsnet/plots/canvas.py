"""The style of all figures: sheets of pictures, charts with axes, saving as PNG.

Digits are white on black. Colours are Okabe and Ito's, safe for colour-blind readers; orange always
means error, but for the second of two digits. Images are floats in [0, 1]; each pixel becomes a
square of whole screen pixels. Equal input gives equal bytes, whatever the user's matplotlib
settings.
"""

import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from io import BytesIO
from pathlib import Path

import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import LogLocator
from matplotlib.transforms import ScaledTranslation
from PIL import Image

from capsnet.data.registry import worded
from capsnet.files import replace_file

WIDTH, SHEET_WIDTH, MARGIN, GAP = 1920, 1600, 28, 8  # pixels; a sheet may be wider
DPI = 256  # a power of two: pixels / DPI * DPI is exact
LINE, TITLE_LINE = 38, 48  # pixels from one line of text to the next

INK, GREY, PALE = "#222222", "#666666", "#E8E8E8"
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
FIRST_DIGIT = np.array([86, 180, 233]) / 255  # blue ...
SECOND_DIGIT = np.array([230, 159, 0]) / 255  # ... and orange, as in the explorer: together white
TAKEN = np.array([0, 158, 115]) / 255  # green: ink that was taken for a digit
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


NOUN = ContextVar("noun", default="digit")  # in place of "digit" in all texts of a figure


def overlay(two: np.ndarray) -> np.ndarray:
    """Two images [2, h, w] as one image [h, w, 3]: the colours add. Images of colour [2, 3, h, w]
    are reduced to their brightest channel.
    """
    two = two.max(axis=1) if two.ndim == 4 else two
    return np.clip(two[0][..., None] * FIRST_DIGIT + two[1][..., None] * SECOND_DIGIT, 0, 1)


def color_key(first: str = "first digit", second: str = "second digit") -> dict[str, np.ndarray]:
    """Legend of the colours of `overlay`."""
    both = np.clip(FIRST_DIGIT + SECOND_DIGIT, 0, 1)
    return {first: FIRST_DIGIT, second: SECOND_DIGIT, "both": both}


def log_scale(axes: Axes, values: np.ndarray) -> None:
    """Log y axis with plain numbers as ticks, more of them over a small range."""
    positive = values[values > 0]
    wide = positive.size and positive.max() > 100 * positive.min()
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3) if wide else (1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def error_bars(value: pd.Series, low: pd.Series, high: pd.Series) -> list[pd.Series]:
    """Lengths of the bars below and above `value`, as `Axes.errorbar` takes them."""
    return [side.clip(lower=0).fillna(0) for side in (value - low, high - value)]


def legend_below(axes: Axes, *, ncols: int = 2) -> None:
    """Legend below the label of the x axis, where it hides no curve."""
    lines = max(label.get_text().count("\n") for label in axes.get_xticklabels())
    inches = 0.42 + 0.12 * lines
    below = axes.transAxes + ScaledTranslation(0, -inches, axes.figure.dpi_scale_trans)
    place = {"loc": "upper left", "bbox_to_anchor": (0, 0), "bbox_transform": below}
    axes.legend(**place, ncols=ncols, columnspacing=1, handlelength=1.5, borderpad=0)


def cell_grid(axes: Axes, columns: Sequence, rows: Sequence, color: str = PALE) -> None:
    """Labels of the cells of an image, lines between them, no frame. Long names stand upright."""
    if any(len(str(name)) > 4 for name in columns):
        axes.tick_params(axis="x", rotation=90)
    for side, labels in ((axes.xaxis, columns), (axes.yaxis, rows)):
        side.set_ticks(range(len(labels)), labels)
        side.set_ticks(np.arange(0.5, len(labels) - 1), minor=True)
    axes.grid(visible=True, which="minor", color=color)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)


def shown(pictures: np.ndarray) -> np.ndarray:
    """Images [..., 3, h, w] of colour as matplotlib takes them, [..., h, w, 3]."""
    return np.moveaxis(pictures, -3, -1)


def tile(axes: Axes, picture: np.ndarray, x: int, y: int, scale: int) -> None:
    """Draw a picture [h, w] or [h, w, 3]."""
    extent = (x, x + scale * picture.shape[1], y + scale * picture.shape[0], y)
    shades = np.round(picture * 63) / 63  # as many as the eye can tell, in a smaller file
    axes.imshow(shades, cmap="gray", vmin=0, vmax=1, extent=extent, aspect="auto")


def tiles(axes: Axes, rows: Sequence[np.ndarray], x: int, y: int, scale: int) -> None:
    """Rows of pictures [n, h, w] or [n, 3, h, w] with gaps, drawn fast as one image."""
    sheets = []
    for pictures in rows:
        last = shown(pictures) if pictures.ndim == 4 else pictures
        large = last.repeat(scale, axis=1).repeat(scale, axis=2)
        edges = ((0, 0), (0, GAP), (0, GAP), (0, 0))[: large.ndim]
        padded = np.pad(large, edges, constant_values=1)  # white
        sheets.append(np.concatenate(list(padded), axis=1))
    tile(axes, np.concatenate(sheets), x, y, 1)


def frame(axes: Axes, corner: tuple[int, int], width: int, height: int, color: str) -> None:
    axes.add_patch(Rectangle(corner, width, height, fill=False, lw=1.8, color=color, zorder=3))


@contextmanager
def sheet(
    path: Path, *, title: str, note: str, width: int, height: int,
    key: dict[str, np.ndarray] | None = None
) -> Iterator[Axes]:  # fmt: skip
    """Axes in screen pixels; (0, 0) is the top left corner, below the title and the note."""
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
            handles = [
                Patch(facecolor=color, edgecolor=GREY, label=name) for name, color in key.items()
            ]
            axes.legend(handles=handles, ncols=len(key), loc="lower left")
        yield axes


@contextmanager
def chart(path: Path, *, height: int, title: str, note: str = "") -> Iterator[Figure]:
    """Figure for axes with ticks, laid out by matplotlib; the note stands below them."""
    with canvas(path, width=WIDTH, height=height, layout="constrained") as figure:
        figure.get_layout_engine().set(w_pad=0.1, h_pad=0.08)
        wrapped = "\n".join(textwrap.wrap(title, WIDTH // 23))
        figure.suptitle(wrapped, x=MARGIN / WIDTH, ha="left", **BOLD)
        if note:
            wrapped = "\n".join(textwrap.wrap(note, WIDTH // 15))
            figure.supxlabel(wrapped, x=MARGIN / WIDTH, ha="left", size=7.5, color=GREY)
        yield figure


@contextmanager
def canvas(path: Path, *, width: int, height: int, layout: str | None = None) -> Iterator[Figure]:
    """Figure of `width` x `height` pixels, saved at the end of the block."""
    with matplotlib.style.context(STYLE, after_reset=True):
        figure = Figure(figsize=(width / DPI, height / DPI), layout=layout)
        yield figure
        for text in figure.findobj(Text) if NOUN.get() != "digit" else ():
            text.set_text(worded(text.get_text(), NOUN.get()))
        agg = FigureCanvasAgg(figure)
        agg.draw()
        pixels = Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3])
        few_colors = pixels.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        png = BytesIO()
        few_colors.save(png, format="png", optimize=True)  # half the size, greys exact
        replace_file(path, png.getvalue())
