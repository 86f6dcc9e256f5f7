"""Figure of predictions: pictures of handwriting and their reconstructions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from capsnet.plots.canvas import INK, color_key, overlay
from capsnet.plots.pictures import Column, picture_columns
from capsnet.reading.recognition import Reading

HEADING_LETTERS = 9  # above a picture


def drawings(
    readings: Mapping[Path, Reading], path: Path, *, num_digits: int, warning: str
) -> None:
    """Inputs above their reconstructions, for two digits separately and together."""
    names, key = ["input", "recon-\nstruction"], None
    note = "In brackets the length of the capsule, from 0 to 1"
    if num_digits > 1:
        names = ["input", "longest\ncapsule", "second\ncapsule", "together"]
        key = color_key("longest capsule", "second capsule")
        note += "; all black: no second digit"
    if any(reading.rejected for reading in readings.values()):
        note += "; rejected: the picture may hold no digit"
    if warning:
        note += f"; {warning}"
    columns = []
    for picture, reading in readings.items():
        drawn = reading.reconstructions
        pictures = [reading.image, *(in_colors(drawn) if num_digits > 1 else drawn)]
        columns.append(Column(heading(picture.stem, reading, num_digits), INK, 0, pictures))
    title = "Inputs and reconstructions of the predicted digits"
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


def in_colors(reconstructions: np.ndarray) -> list[np.ndarray]:
    """One or two reconstructions [k, h, w] as images [h, w, 3]: the first, the second, both."""
    two = np.zeros((2, *reconstructions.shape[1:]), reconstructions.dtype)
    two[: len(reconstructions)] = reconstructions
    shown = np.array([[1, 0], [0, 1], [1, 1]], two.dtype)
    return [overlay(two * one[:, None, None]) for one in shown]


def heading(name: str, reading: Reading, num_digits: int) -> str:
    """The name cut to the width of a picture, whether it is rejected, and a line per digit."""
    if len(name) > HEADING_LETTERS:
        name = f"{name[: HEADING_LETTERS - 1]}…"
    lines = [name, *(["rejected:"] if reading.rejected else []), *reading.lines()]
    return "\n".join(lines + [""] * (2 + num_digits - len(lines)))  # all of the same height
