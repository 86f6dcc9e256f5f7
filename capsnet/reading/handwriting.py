"""A picture of handwriting -> the input of a network, prepared as MNIST prepares its digits.

MNIST (http://yann.lecun.com/exdb/mnist): white ink on black, scaled to fit a box of 20x20 px, the
centre of mass in the middle of 28x28. A picture may have any size, colour and transparency, dark on
light or light on dark. Its paper is the median of its border.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from skimage.measure import label

LARGEST = 1024  # pixels; larger pictures are reduced first
FAINT = 0.1  # of full ink: fainter pixels do not count in the box around the ink
SPECK = 0.01  # of the ink of the largest stain: smaller stains are dropped
LEAST_CONTRAST = 0.08  # between ink and paper; black to white is 1
MARGIN = 1  # pixels without ink at the edge, as in 98 % of MNIST and MultiMNIST


def read_handwriting(file: Path | bytes) -> np.ndarray:
    """Ink float [h, w], 0 paper to 1 stroke, of a picture file or its bytes.

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


def decode(data: bytes) -> Image.Image:
    """Decode a picture and turn it upright. Raises ValueError."""
    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as image:
                return ImageOps.exif_transpose(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS // 10**6
        raise ValueError(f"larger than {limit} million pixels: make it smaller") from None
    except Image.UnidentifiedImageError:
        raise ValueError("not a picture in a format that Pillow knows") from None
    except Exception as error:  # the decoders of broken files raise nearly anything
        raise ValueError(f"not a whole picture ({' '.join(str(error).split())})") from None


def find_ink(grey: np.ndarray) -> np.ndarray:
    """Ink float [h, w] in [0, 1] from brightness [h, w] in [0, 1].

    Ink is darker or lighter than the paper, whichever differs more. Raises ValueError without ink.
    """
    border = np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])
    paper = float(np.median(border))
    darker, lighter = paper - float(grey.min()), float(grey.max()) - paper
    contrast = max(darker, lighter)
    if contrast < LEAST_CONTRAST:
        raise ValueError("empty: nothing in it is darker or lighter than its border")
    ink = grey - paper if lighter > darker else paper - grey
    # The median allows ink on up to half of the border. A picture of noise keeps its peaks.
    grain = 3 * float(np.median(np.abs(border - paper)))
    ink = (ink - min(grain, contrast / 2)).clip(0)
    full = np.percentile(ink[ink > ink.max() / 2], 75)  # so not only the darkest pixel is full ink
    return without_specks((ink / full).clip(0, 1))


def without_specks(ink: np.ndarray) -> np.ndarray:
    """Drop small stains, which would enlarge the box around the digits."""
    stains = label(ink > FAINT, connectivity=2)
    mass = np.bincount(stains.ravel(), weights=ink.ravel())
    kept = mass >= SPECK * mass[1:].max()
    kept[0] = True  # the paper and the faint edges of strokes
    return ink * kept[stains]


def fit(ink: np.ndarray, *, image_size: int, box_size: int) -> np.ndarray:
    """Scale ink to a box of `box_size` px, its centre of mass in the middle: float32 [size, size].

    A picture of exactly the network's size stays as it is.
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
    """The box around the ink, its longer side `box_size` px, its maximum 1."""
    rows, columns = np.nonzero(ink > FAINT)
    crop = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    factor = box_size / max(crop.shape)
    height, width = (max(1, round(side * factor)) for side in crop.shape)
    picture = Image.fromarray(crop.astype(np.float32))
    scaled = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC)).clip(0)
    return scaled / scaled.max()


def place(profile: np.ndarray, image_size: int) -> int:
    """First row (or column) of the box on the canvas, given the sum of each of its rows.

    MNIST's centres of mass are at pixel 14.0 of 28. The box keeps a margin if there is room.
    """
    centre = (profile * np.arange(len(profile))).sum() / profile.sum()
    room = image_size - len(profile)
    margin = min(MARGIN, room // 2)
    return int(np.clip(round(image_size / 2 - centre), margin, room - margin))
