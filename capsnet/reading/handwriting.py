"""A picture of handwriting -> the input of a network, prepared as MNIST prepares its digits.

MNIST (http://yann.lecun.com/exdb/mnist): white ink on black, scaled to fit a box of 20x20 px, the
centre of mass in the middle of 28x28. A picture may have any size, colour and transparency, dark on
light or light on dark. `capsnet.reading.page` finds the ink on it.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import center_of_mass, maximum_filter

from capsnet.data.pictures import decode
from capsnet.reading.page import FAINT, find_ink, stroke_width

LARGEST = 1024  # pixels; larger pictures are reduced first
THINNEST = 2.5  # pixels, of a stroke in the box: MNIST's median; a pen's may be a tenth of that
OFF_CENTRE = 1.0  # pixels between centre of mass and middle, at most, in MNIST and a little more
OFF_SIZE = 2  # pixels by which the box of a digit of MNIST may differ from 20
MARGIN = 1  # pixels without ink at the edge, as in 98 % of MNIST and MultiMNIST


def read_handwriting(file: Path | bytes) -> np.ndarray:
    """Ink float [h, w], 0 paper to 1 stroke, of the marks in a picture file or its bytes.

    Reads every format of Pillow, the first picture of several. Raises ValueError if there is none.
    """
    name = "the picture" if isinstance(file, bytes) else file
    try:
        return find_ink(read_grey(file if isinstance(file, bytes) else file.read_bytes()))
    except (OSError, ValueError) as error:
        raise ValueError(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def read_grey(data: bytes) -> np.ndarray:
    """Brightness float [h, w] in [0, 1] of an encoded picture: upright, opaque, reduced."""
    image = decode(data)
    factor = -(-max(image.size) // LARGEST)
    if image.mode[0] in "IF":  # 16 or 32 bits have no fixed white: scale darkest to lightest
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
        grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)
        return np.asarray(Image.fromarray(grey).reduce(factor))
    if not image.has_transparency_data:
        return np.asarray(image.convert("L").reduce(factor), dtype=np.float32) / 255
    parts = image.convert("RGBA").reduce(factor).convert("LA").split()
    grey, opacity = (np.asarray(part, dtype=np.float32) / 255 for part in parts)
    if opacity.mean() > 0.5:  # mostly opaque: continue its own paper
        paper = float(np.median(grey[opacity > 0.5]))
    else:  # white paper behind dark strokes, black paper behind light ones
        paper = float((grey * opacity).sum() < 0.5 * opacity.sum())
    return grey * opacity + paper * (1 - opacity)


def fit(
    ink: np.ndarray, *, image_size: int, box_size: int, thinnest: float = THINNEST,
    centre: str = "mass"
) -> np.ndarray:  # fmt: skip
    """Scale ink to a box of `box_size` px with strokes of at least `thinnest` px, the centre of its
    "mass" or of its "box" in the middle: float32 [size, size].

    A picture of the network's size whose digit lies so already stays as it is.
    """
    if lies_as_trained(ink, image_size, (box_size,), OFF_CENTRE, centre):
        return ink.astype(np.float32)
    scaled = scale(ink, box_size, thinnest)
    top, left = (place(scaled.sum(axis=1 - axis), image_size, centre) for axis in (0, 1))
    height, width = scaled.shape
    canvas = np.zeros((image_size, image_size), dtype=np.float32)
    canvas[top : top + height, left : left + width] = scaled
    return canvas


def lies_as_trained(
    ink: np.ndarray, image_size: int, boxes: tuple[int, ...], off_centre: float, centre: str
) -> bool:
    """Whether ink [h, w] has the network's size, a box of about one of the sizes `boxes` and its
    `centre` within `off_centre` px of the middle in both directions.
    """
    if ink.shape != (image_size, image_size) or not ink.any():
        return False
    inked = np.nonzero(ink > FAINT)
    longer = max(np.ptp(places) + 1 for places in inked)
    middle = [(places.min() + places.max() + 1) / 2 for places in inked]
    middle = middle if centre == "box" else center_of_mass(ink)
    near = np.abs(np.array(middle) - image_size / 2).max() <= off_centre
    return bool(near and min(boxes) - OFF_SIZE <= longer <= max(boxes) + OFF_SIZE)


def scale(ink: np.ndarray, box_size: int, thinnest: float = THINNEST) -> np.ndarray:
    """The box around the ink, its longer side `box_size` px with strokes of at least `thinnest` px,
    its maximum 1.
    """
    longer = max(np.ptp(places) + 1 for places in np.nonzero(ink > FAINT))
    missing = thinnest * longer / box_size - stroke_width(ink > 0.5)
    more = max(0, round(missing / 2))  # on either side of a stroke
    ink = maximum_filter(np.pad(ink, more), 1 + 2 * more)
    rows, columns = np.nonzero(ink > FAINT)
    crop = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    factor = box_size / max(crop.shape)
    height, width = (max(1, round(side * factor)) for side in crop.shape)
    picture = Image.fromarray(crop.astype(np.float32))
    scaled = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).clip(0)
    return scaled / scaled.max()


def place(profile: np.ndarray, image_size: int, centre: str) -> int:
    """First row (or column) of the box on the canvas, given the sum of each of its rows.

    MNIST's centres of mass are at pixel 14.0 of 28. The box keeps a margin if there is room.
    """
    middle = len(profile) / 2
    if centre == "mass":
        middle = (profile * np.arange(len(profile))).sum() / profile.sum()
    room = image_size - len(profile)
    margin = min(MARGIN, room // 2)
    return int(np.clip(round(image_size / 2 - middle), margin, room - margin))
