"""A picture of handwriting -> what a network takes: digits made as MNIST made its own.

MNIST (http://yann.lecun.com/exdb/mnist): white ink on black, scaled so that the digit fits a box of
20x20 px, grey only at the edges, its centre of mass in the middle of 28x28. A picture may be of any
size, colour, grey or transparent, dark on light or light on dark; its paper is what most of its
border is.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage.measure import label

MOST_PIXELS = 80_000_000  # of a picture: one that is larger could fill the memory (4 bytes a pixel)
LARGEST = 1024  # pixels; of a larger picture several pixels are averaged to one first
FAINT = 0.1  # of full ink: fainter pixels do not count when the box is drawn around the ink
SPECK = 0.01  # of the largest stain's ink: smaller stains are dropped
LEAST_CONTRAST = 0.08  # between ink and paper, where black to white is 1
MARGIN = 1  # pixels without ink at the edge, as 98 of 100 pictures of MNIST and MultiMNIST have it


def read_handwriting(file: Path | bytes) -> np.ndarray:
    """Ink float [h, w], 0 paper to 1 stroke, of a picture: a file or its bytes.

    Any format that Pillow reads; of several pictures in it the first. Raises ValueError that names
    the file if it is missing, no picture, or empty.
    """
    name = "the picture" if isinstance(file, bytes) else file
    try:
        return find_ink(read_grey(file))
    except FileNotFoundError:
        raise ValueError(f"{name} is missing") from None
    except IsADirectoryError:
        raise ValueError(f"{name} is a folder, wanted a picture") from None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def read_grey(file: Path | bytes) -> np.ndarray:
    """Brightness float [h, w] in [0, 1] of a picture: upright, opaque, no larger than needed.

    Raises OSError if the file cannot be opened, ValueError if Pillow cannot read it.
    """
    data = file if isinstance(file, bytes) else file.read_bytes()
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            too_large = image.width * image.height > MOST_PIXELS
            image = None if too_large else ImageOps.exif_transpose(image)
    except Image.DecompressionBombError:
        too_large = True
    except Image.UnidentifiedImageError:
        raise ValueError("not a picture in a format that Pillow knows") from None
    except Exception as error:  # the decoders of broken files raise nearly anything
        raise ValueError(f"not a whole picture ({' '.join(str(error).split())})") from None
    if too_large:
        raise ValueError(f"larger than {MOST_PIXELS // 10**6} million pixels: make it smaller")
    factor = -(-max(image.size) // LARGEST)
    if image.mode[0] in "IF":  # 16 or 32 bits: no white of their own, so from darkest to lightest
        grey = np.nan_to_num(np.asarray(image, dtype=np.float32), posinf=0.0, neginf=0.0)
        grey = (grey - grey.min()) / max(float(np.ptp(grey)), 1.0)
        return np.asarray(Image.fromarray(grey).reduce(factor))
    if not image.has_transparency_data:
        return np.asarray(image.convert("L").reduce(factor), dtype=np.float32) / 255
    parts = image.convert("RGBA").reduce(factor).convert("LA").split()
    grey, opacity = (np.asarray(part, dtype=np.float32) / 255 for part in parts)
    return grey * opacity + paper_behind(grey, opacity) * (1 - opacity)


def paper_behind(grey: np.ndarray, opacity: np.ndarray) -> float:
    """What to lay behind a transparent picture: white under dark strokes, black under light ones.

    What is mostly opaque has its own paper, which is continued.
    """
    if opacity.mean() > 0.5:
        return float(np.median(grey[opacity > 0.5]))
    return float((grey * opacity).sum() < 0.5 * opacity.sum())


def find_ink(grey: np.ndarray) -> np.ndarray:
    """Ink float [h, w] in [0, 1] from brightness [h, w] in [0, 1].

    The paper is as bright as the middle of the border; ink is what is darker, or what is lighter if
    that differs more. Raises ValueError if nothing differs.
    """
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    paper = float(np.median(border))
    darker, lighter = paper - float(grey.min()), float(grey.max()) - paper
    contrast = max(darker, lighter)
    if contrast < LEAST_CONTRAST:
        raise ValueError("empty: nothing in it is darker or lighter than its border")
    ink = grey - paper if lighter > darker else paper - grey
    # A median, for ink may fill up to half of the border; what is only noise keeps its peaks.
    grain = 3 * float(np.median(np.abs(border - paper)))
    ink = (ink - min(grain, contrast / 2)).clip(0)
    full = np.percentile(ink[ink > ink.max() / 2], 75)  # not only the darkest pixel is full ink
    return without_specks((ink / full).clip(0, 1))


def without_specks(ink: np.ndarray) -> np.ndarray:
    """Drop what is small beside the digits: a grain of dust would widen their box."""
    stains = label(ink > FAINT, connectivity=2)
    mass = np.bincount(stains.ravel(), weights=ink.ravel())
    kept = mass >= SPECK * mass[1:].max()
    kept[0] = True  # not a stain but the paper and the faint edges of strokes
    return ink * kept[stains]


def fit(ink: np.ndarray, *, image_size: int, box_size: int) -> np.ndarray:
    """Scale ink to a box of `box_size` px, its centre of mass in the middle: float32 [size, size].

    A picture of exactly the network's size was made for it and stays as it is.
    """
    if ink.shape == (image_size, image_size):
        return ink.astype(np.float32)
    scaled = scale(ink, box_size)
    top, left = (place(scaled.sum(axis=1 - axis), image_size) for axis in (0, 1))
    height, width = scaled.shape
    canvas = np.zeros((image_size, image_size), dtype=np.float32)
    canvas[top : top + height, left : left + width] = scaled
    return canvas


def scale(ink: np.ndarray, box_size: int) -> np.ndarray:
    """The box around the ink, its longer side `box_size` px, its fullest pixel 1."""
    rows, columns = np.nonzero(ink > FAINT)
    crop = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    factor = box_size / max(crop.shape)
    height, width = (max(1, round(side * factor)) for side in crop.shape)
    picture = Image.fromarray(crop.astype(np.float32))  # shrinking, Pillow averages all pixels
    scaled = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).clip(0)
    return scaled / scaled.max()


def place(profile: np.ndarray, image_size: int) -> int:
    """Where along one axis the box begins, given its ink row by row or column by column.

    MNIST's centres of mass are at pixel 14.0 of 28, not at 13.5. That would push the foot of a 7
    against the edge or beyond it: the box stays on the canvas, with a margin if there is room.
    """
    centre = (profile * np.arange(len(profile))).sum() / profile.sum()
    room = image_size - len(profile)
    margin = min(MARGIN, room // 2)
    return int(np.clip(round(image_size / 2 - centre), margin, room - margin))
