"""Figure of predictions: pictures of handwriting and their reconstructions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from capsnet.data.pictures import read_picture
from capsnet.plots.canvas import INK, TAKEN, color_key, overlay
from capsnet.plots.pictures import MOST_WIDTH, Column, in_color, picture_columns
from capsnet.reading.handwriting import read_grey
from capsnet.reading.recognition import Reading

HEADING_LETTERS = 9  # above a picture


def drawings(
    readings: Mapping[Path, Reading], path: Path, *, num_digits: int, warning: str
) -> None:
    """Pictures, in green what was taken for digits, above the inputs and reconstructions."""
    names, key = ["picture", "input", "recon-\nstruction"], None
    note = "In brackets the length of the capsule, from 0 to 1"
    if any(reading.taken is not None for reading in readings.values()):
        note = f"Green: taken for the digit. {note}"
    if num_digits > 1:
        names = ["picture", "input", "longest\ncapsule", "second\ncapsule", "together"]
        key = color_key("longest capsule", "second capsule")
        note += "; all black: no second digit"
    if any(reading.rejected for reading in readings.values()):
        note += "; rejected: the picture may hold no digit"
    if warning:
        note += f"; {warning}"
    columns = []
    for picture, reading in readings.items():
        drawn = reading.reconstructions
        drawn = in_colors(drawn) if num_digits > 1 else in_color(drawn)
        pictures = [*in_color([reading.image]), *drawn]
        times = max(1, MOST_WIDTH // len(pictures[0]))
        pictures = [each.repeat(times, axis=0).repeat(times, axis=1) for each in pictures]
        pictures.insert(0, as_given(picture.read_bytes(), reading, len(pictures[0])))
        columns.append(Column(heading(picture.stem, reading, num_digits), INK, 0, pictures))
    title = "Pictures, inputs and reconstructions of the predicted digits"
    picture_columns(columns, path, names=names, title=title, note=note, key=key)


def as_given(data: bytes, reading: Reading, size: int) -> np.ndarray:
    """An encoded picture on a square [size, size, 3]: in colour for a network of colour, else its
    brightness with what was taken in green.
    """
    if reading.image.ndim == 3:
        image = read_picture(data).convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    else:
        grey = read_grey(data)
        share = (np.zeros_like(grey) if reading.taken is None else reading.taken)[..., None]
        colored = grey[..., None] * (1 - share) + TAKEN * share
        image = Image.fromarray((255 * colored.clip(0, 1)).astype(np.uint8))
    return np.asarray(ImageOps.pad(image, (size, size), color="white")) / 255


def in_colors(reconstructions: np.ndarray) -> list[np.ndarray]:
    """One or two reconstructions [k, h, w] as images [h, w, 3]: the first, the second, both."""
    grey = reconstructions.max(axis=1) if reconstructions.ndim == 4 else reconstructions
    two = np.zeros((2, *grey.shape[1:]), grey.dtype)
    two[: len(grey)] = grey
    shown = np.array([[1, 0], [0, 1], [1, 1]], two.dtype)
    return [overlay(two * one[:, None, None]) for one in shown]


def heading(name: str, reading: Reading, num_digits: int) -> str:
    """The name cut to the width of a picture, whether it is rejected, and a line per digit."""
    if len(name) > HEADING_LETTERS:
        name = f"{name[: HEADING_LETTERS - 1]}…"
    lines = [name, *(["rejected:"] if reading.rejected else []), *reading.lines()]
    return "\n".join(lines + [""] * (2 + num_digits - len(lines)))  # all of the same height
