"""Figures made of small pictures in rows and columns."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from capsnet.plots.canvas import (
    GAP,
    GREY,
    GROUP_GAP,
    LINE,
    MARGIN,
    ORANGE,
    SHEET_WIDTH,
    WIDTH,
    frame,
    largest_scale,
    sheet,
    tile,
)

MOST_COLUMNS = 12
LEFT = 160  # pixels, for the names of the rows


class Column(NamedTuple):
    """Pictures below each other under a heading; a line separates groups of columns."""

    heading: str
    color: str
    group: int
    pictures: Sequence[np.ndarray]


def notice(path: Path, *, title: str, note: str) -> None:
    """Write a text in place of a figure that does not exist for this network."""
    with sheet(path, title=title, note=note, width=SHEET_WIDTH - 2 * MARGIN, height=0):
        pass


def picture_columns(
    columns: Sequence[Column], path: Path, *, names: Sequence[str], title: str, note: str,
    key: dict[str, np.ndarray] | None = None, framed: bool = False
) -> None:  # fmt: skip
    """Draw columns, sorted by group, in bands of equal length.

    `names` label the rows of pictures, `key` the colours. `framed` puts a frame around the last
    picture of each orange column. Raises ValueError without columns.
    """
    if not columns:
        raise ValueError(f"{path}: no examples to draw, but the figure needs at least one")
    columns = sorted(columns, key=lambda column: column.group)
    per_band = -(-len(columns) // -(-len(columns) // MOST_COLUMNS))
    bands = [columns[at : at + per_band] for at in range(0, len(columns), per_band)]
    height, width = columns[0].pictures[0].shape
    gaps = GROUP_GAP * (len({column.group for column in columns}) - 1)
    scale = largest_scale(width, per_band, room=WIDTH - 2 * MARGIN - LEFT - gaps, largest=5)
    across, down = scale * width + GAP, scale * height + GAP
    head = LINE * (1 + columns[0].heading.count("\n"))
    band_height = head + len(names) * down + 2 * GAP
    size = {"width": LEFT + per_band * across + gaps, "height": len(bands) * band_height}
    with sheet(path, title=title, note=note, key=key, **size) as axes:
        for number, band in enumerate(bands):
            top, x = number * band_height + head, LEFT
            for place, name in enumerate(names):
                axes.text(0, top + (place + 0.5) * down, name, va="center", color=GREY)
            for index, (_, group) in enumerate(groupby(band, key=lambda column: column.group)):
                if index:
                    ends = (top - head, top + len(names) * down)
                    axes.vlines(x + (GROUP_GAP - GAP) / 2, *ends, color=GREY, linewidth=0.6)
                    x += GROUP_GAP
                for column in group:
                    style = {"ha": "center", "va": "bottom", "size": 7, "linespacing": 1.1}
                    center = x + scale * width / 2
                    axes.text(center, top - GAP, column.heading, color=column.color, **style)
                    for row, picture in enumerate(column.pictures):
                        tile(axes, picture, x, top + row * down, scale)
                    if framed and column.color == ORANGE:
                        corner = (x, top + (len(names) - 1) * down)
                        frame(axes, corner, scale * width, scale * height, ORANGE)
                    x += across
