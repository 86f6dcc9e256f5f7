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


class Column(NamedTuple):
    """Pictures below each other under a heading; groups of columns stand apart."""

    heading: str
    color: str
    group: int
    pictures: Sequence[np.ndarray]


def notice(path: Path, *, title: str, note: str) -> None:
    """Words in the place of a figure that there is none of, so that the place is not empty."""
    with sheet(path, title=title, note=note, width=SHEET_WIDTH - 2 * MARGIN, height=0):
        pass


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
