"""Figures made of small pictures in rows and columns."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from capsnet.plots import canvas
from capsnet.plots.canvas import GAP, GREY, LINE, ORANGE

MOST_COLUMNS = 8
MOST_WIDTH = 150  # pixels, of a picture
MOST_LETTERS = 24  # of a line of a heading
LETTER = 14  # pixels, width
LEFT = 160  # pixels, for the names of the rows


class Column(NamedTuple):
    """Pictures [h, w] or [h, w, 3] under a heading; each group starts a new band."""

    heading: str
    color: str
    group: int
    pictures: Sequence[np.ndarray]


def in_color(pictures: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Pictures [h, w] as they are, [3, h, w] as [h, w, 3]."""
    return [canvas.shown(each) if each.ndim == 3 else each for each in pictures]


def cut(text: str) -> str:
    """A line of a heading of at most MOST_LETTERS."""
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"


def notice(path: Path, *, title: str, note: str) -> None:
    """Write a text in place of a figure that does not exist for this network."""
    width = canvas.SHEET_WIDTH - 2 * canvas.MARGIN
    with canvas.sheet(path, title=title, note=note, width=width, height=0):
        pass


def picture_columns(
    columns: Sequence[Column], path: Path, *, names: Sequence[str], title: str, note: str,
    key: dict[str, np.ndarray] | None = None, framed: bool = False
) -> None:  # fmt: skip
    """Draw columns, sorted by group, in bands.

    `names` label the rows of pictures, `key` the colours. `framed` frames the last picture of each
    orange column.
    """
    bands = []
    for _, group in groupby(sorted(columns, key=lambda one: one.group), key=lambda one: one.group):
        group = list(group)
        bands += [group[at : at + MOST_COLUMNS] for at in range(0, len(group), MOST_COLUMNS)]
    height, width = columns[0].pictures[0].shape[:2]
    scale = max(1, MOST_WIDTH // width)
    letters = max(len(line) for column in columns for line in column.heading.splitlines())
    across, down = max(scale * width, LETTER * letters) + GAP, scale * height + GAP
    head = LINE * (1 + columns[0].heading.count("\n"))
    band_height = head + len(names) * down + 2 * GAP
    size = {"width": LEFT + max(map(len, bands)) * across, "height": len(bands) * band_height}
    with canvas.sheet(path, title=title, note=note, key=key, **size) as axes:
        for number, band in enumerate(bands):
            top = number * band_height + head
            for place, name in enumerate(names):
                axes.text(0, top + (place + 0.5) * down, name, va="center", color=GREY)
            for index, column in enumerate(band):
                x = LEFT + index * across
                style = {"ha": "center", "va": "bottom", "size": 7, "linespacing": 1.1}
                center = x + scale * width / 2
                axes.text(center, top - GAP, column.heading, color=column.color, **style)
                for row, picture in enumerate(column.pictures):
                    canvas.tile(axes, picture, x, top + row * down, scale)
                if framed and column.color == ORANGE:
                    corner = (x, top + (len(names) - 1) * down)
                    canvas.frame(axes, corner, scale * width, scale * height, ORANGE)
