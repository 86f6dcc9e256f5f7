"""Figures made of small pictures in rows and columns.

After Sabour et al. 2017: Figure 3 (`reconstructions`) and Figure 5 (`overlaid_reconstructions`);
the others are ours. Unlike the paper, digits are white on black.
"""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from capsnet.figures.canvas import (
    FIRST_DIGIT,
    GAP,
    GREY,
    GROUP_GAP,
    INK,
    LINE,
    MARGIN,
    ORANGE,
    PURPLE,
    SECOND_DIGIT,
    SHEET_WIDTH,
    WIDTH,
    frame,
    largest_scale,
    overlay,
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


def reconstructions(examples: Sequence, path: Path, *, title: str) -> None:
    """Figure 3: each `image` [h, w] above its `reconstruction` under three digits, `label`,
    `prediction` and `decoded`; failures (label != prediction) to the right.
    """
    columns = []
    for one in examples:
        failed = one.label != one.prediction
        heading = f"({one.label}, {one.prediction}, {one.decoded})"
        pictures = [one.image, one.reconstruction]
        columns.append(Column(heading, ORANGE if failed else INK, int(failed), pictures))
    note = "(label, prediction, digit whose capsule is decoded)"
    if any(column.group for column in columns):
        note += "; in orange, at the end: failures of the network"
    picture_columns(columns, path, names=["input", "recon-\nstruction"], title=title, note=note)


def overlaid_reconstructions(examples: Sequence, path: Path, *, title: str) -> None:
    """Figure 5: an `image` [h, w] of two digits, its two `sources` and the `reconstructions`
    [2, h, w] of the two digits `decoded`, in two colours. Decoded are the "correct" digits, the
    network's "wrong" ones, or one that is "neither": the `case`.
    """
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
