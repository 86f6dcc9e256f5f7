"""Figures of predictions: pictures of handwriting and their reconstructions."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from capsnet.plots.canvas import INK, color_key, overlay
from capsnet.plots.pictures import Column, picture_columns

HEADING_LETTERS = 9  # above a picture


class Drawing(NamedTuple):
    """One picture. digits: a short line for each predicted digit. image: the input [h, w].
    reconstructions: [k, h, w], one for each predicted digit.
    """

    name: str
    digits: Sequence[str]
    rejected: bool
    image: np.ndarray
    reconstructions: np.ndarray


def drawings(
    examples: Sequence[Drawing], path: Path, *, num_digits: int, warning: str = ""
) -> None:
    """Inputs above reconstructions; of a network for two digits each alone and both together.

    The warning, if any, ends the note below.
    """
    names, key = ["input", "recon-\nstruction"], None
    note = "In brackets the length of the capsule, from 0 to 1"
    if num_digits > 1:
        names = ["input", "longest\ncapsule", "second\ncapsule", "together"]
        key = color_key("longest capsule", "second capsule")
        note += "; all black: no second digit"
    if any(one.rejected for one in examples):
        note += "; rejected: the picture may hold no digit"
    if warning:
        note += f"; {warning}"
    columns = []
    for one in examples:
        pictures = [one.image, one.reconstructions[0]]
        if num_digits > 1:
            pictures = [one.image, *in_colors(one.reconstructions)]
        columns.append(Column(heading(one, num_digits), INK, 0, pictures))
    title = "Inputs and reconstructions of the predicted digits"
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


def in_colors(reconstructions: np.ndarray) -> list[np.ndarray]:
    """One or two reconstructions [k, h, w] as pictures [h, w, 3]: the first, the second, both."""
    two = np.zeros((2, *reconstructions.shape[1:]), reconstructions.dtype)
    two[: len(reconstructions)] = reconstructions
    first, second = two.copy(), two.copy()
    first[1], second[0] = 0, 0
    return [overlay(first), overlay(second), overlay(two)]


def heading(one: Drawing, num_digits: int) -> str:
    """The name cut to what fits above a picture, whether it is sure, a line for each digit."""
    name = one.name
    if len(name) > HEADING_LETTERS:
        name = f"{name[: HEADING_LETTERS - 1]}…"
    lines = [name, *(["rejected:"] if one.rejected else []), *one.digits]
    return "\n".join(lines + [""] * (2 + num_digits - len(lines)))  # as high as its neighbours
