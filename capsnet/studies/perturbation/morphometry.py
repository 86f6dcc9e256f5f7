"""The shape of handwriting as numbers: stroke thickness, slant, size, place, sharpness.

After Morpho-MNIST (Castro, Tan, Kainz, Konukoglu & Glocker, JMLR 2019, arXiv 1809.10780): thickness
is twice the mean distance from the skeleton to the edge, slant comes from the second moments, width
and height from the parallelogram that holds all but 1 % of the ink at either end. Different here:
the images are grey reconstructions that change by fractions of a pixel, so each measure is relative
to the image's own brightness and made of grey values, or of a contour that passes between the
pixels (Morpho-MNIST enlarges and thresholds). Its skeleton is the medial axis, which has a spur for
every bump of the edge; the thinned one has not, and a bump that comes and goes from one column of a
sweep to the next is not a change of thickness. And images are measured a thousand at a time, on one
large mosaic.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.ndimage import zoom
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

FAINTEST = 0.1  # an image that is nowhere brighter holds no ink
EDGE = 0.5  # the contour, as a share of the image's greatest brightness
HAZE = 0.1  # share of the greatest brightness up to which a pixel is background
TAIL = 0.01  # share of the ink beyond either end of width and height (Morpho-MNIST)
BLOCK = 512  # images on one mosaic


class Measure(NamedTuple):
    """What a field of `Shapes` is counted in; a `relative` one is best told in percent of it."""

    unit: str
    relative: bool


MEASURES = {
    "thickness": Measure("px", True),
    "slant": Measure("degrees", False),
    "width": Measure("px", True),
    "height": Measure("px", True),
    "area": Measure("px^2", True),
    "horizontal_centre": Measure("px", False),
    "vertical_centre": Measure("px", False),
    "sharpness": Measure("1/px", True),
}


class Shapes(NamedTuple):
    """The measures of images, each [n]; NaN where an image has no ink.

    thickness: px, twice the mean distance from the skeleton to the contour, which lies where the
        image is half as bright as at its brightest.
    slant: degrees, positive where the top leans to the right, as most writing does.
    width: px along a row after the slant is taken out: the middle 98 % of the ink, over 0.98, so
        that a filled box has exactly its own width.
    height: px along a column, likewise.
    area: px^2 of ink; a pixel counts in full from 3/4 of the greatest brightness on, not at all
        below 1/4, in part between.
    horizontal_centre, vertical_centre: px from the middle of the image to the centre of the ink,
        to the right and upwards.
    sharpness: 1/px, mean slope of brightness, each place weighed by its slope, relative to the
        greatest brightness: 1 for a straight step from one pixel to the next.
    """

    thickness: np.ndarray
    slant: np.ndarray
    width: np.ndarray
    height: np.ndarray
    area: np.ndarray
    horizontal_centre: np.ndarray
    vertical_centre: np.ndarray
    sharpness: np.ndarray


def measure(images: np.ndarray) -> Shapes:
    """Measure each image of [n, h, w], floats in [0, 1], by itself, whatever lies beside it."""
    if images.ndim != 3:
        raise ValueError(f"images of shape {images.shape}, wanted [n, h, w]")
    blocks = [images[at : at + BLOCK] for at in range(0, len(images), BLOCK)] or [images]
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # nearly all time is spent outside Python
        parts = list(pool.map(_measure_block, blocks))
    return Shapes(*map(np.concatenate, zip(*parts, strict=True)))


def _measure_block(images: np.ndarray) -> Shapes:
    brightness = images.max(axis=(1, 2), initial=0)
    inked = brightness >= FAINTEST
    grey = np.zeros(images.shape, dtype=np.float32)
    np.divide(images, brightness[:, None, None], out=grey, where=inked[:, None, None])
    ink = np.maximum(grey - HAZE, 0) / (1 - HAZE)
    with np.errstate(invalid="ignore"):  # no ink: 0 / 0 is the NaN that is wanted
        ink = ink / ink.sum(axis=(1, 2), keepdims=True, dtype=np.float64)
    across, up, shear = moments(ink)
    width, height = extents(ink, up, shear)
    return Shapes(
        thickness=thickness(grey),
        slant=np.degrees(np.arctan(shear)),
        width=width,
        height=height,
        area=np.where(inked, np.clip(2 * grey - 0.5, 0, 1).sum(axis=(1, 2)), np.nan),
        horizontal_centre=across,
        vertical_centre=up,
        sharpness=sharpness(grey),
    )


def moments(ink: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre to the right and up from the middle, px, and shear, px to the right per px up: [n].

    `ink` [n, h, w] sums to 1 in each image.
    """
    _, height, width = ink.shape
    right, up = np.arange(width) - (width - 1) / 2, (height - 1) / 2 - np.arange(height)
    columns, rows = ink.sum(axis=1), ink.sum(axis=2)
    across, above = columns @ right, rows @ up
    mixed = np.einsum("nhw,h,w->n", ink, up, right, optimize=True) - across * above
    spread = rows @ up**2 - above**2  # of a line along one row: 0, and it has no slant
    shear = np.divide(mixed, spread, out=np.zeros_like(mixed), where=~(spread < 1e-6))
    return across, above, shear


def extents(
    ink: np.ndarray, centre: np.ndarray, shear: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Width and height in px of the upright parallelogram that holds the middle 98 %: two [n].

    Each row moves back by its shear, the row of the vertical `centre` [n] stays; a pixel that comes
    to lie across two columns is shared.
    """
    num_images, height, width = ink.shape
    up = (height - 1) / 2 - np.arange(height) - np.nan_to_num(centre)[:, None]  # [n, h]
    reach = height  # columns added on either side; a lean of more than 45 degrees is cut there
    back = np.clip(-np.nan_to_num(shear)[:, None] * up, -reach, reach - 1)  # [n, h]
    whole = np.floor(back).astype(np.int64)
    part = (back - whole)[:, :, None]
    bins = width + 2 * reach
    place = np.arange(num_images)[:, None] * bins + whole + reach
    place = (place[:, :, None] + np.arange(width)).ravel()
    size = num_images * bins + 1
    columns = np.bincount(place, (ink * (1 - part)).ravel(), size)
    columns += np.bincount(place + 1, (ink * part).ravel(), size)
    return _middle(columns[:-1].reshape(num_images, bins)), _middle(ink.sum(axis=2))


def _middle(profile: np.ndarray) -> np.ndarray:
    """Length of the middle 98 % of profiles [n, length] that sum to 1, over 0.98: [n]."""
    total = np.pad(profile.cumsum(axis=1), ((0, 0), (1, 0)))
    ends = [_quantile(total, profile, share) for share in (TAIL, 1 - TAIL)]
    return (ends[1] - ends[0]) / (1 - 2 * TAIL)


def _quantile(total: np.ndarray, profile: np.ndarray, share: float) -> np.ndarray:
    """Where the running total [n, length + 1] reaches `share`, between the pixels: [n]."""
    at = np.clip((total < share).sum(axis=1) - 1, 0, profile.shape[1] - 1)[:, None]
    before, here = np.take_along_axis(total, at, 1), np.take_along_axis(profile, at, 1)
    return (at + (share - before) / np.where(here == 0, 1, here))[:, 0]


def sharpness(grey: np.ndarray) -> np.ndarray:
    """Mean slope, 1/px, weighed by the slope, of images [n, h, w] with brightness up to 1: [n]."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)))
    down, right = np.diff(padded, axis=1)[:, :, :-1], np.diff(padded, axis=2)[:, :-1]
    squares = down**2 + right**2
    with np.errstate(invalid="ignore"):
        return squares.sum(axis=(1, 2)) / np.sqrt(squares).sum(axis=(1, 2))


def thickness(grey: np.ndarray) -> np.ndarray:
    """Twice the mean distance, px, from the skeleton to the contour of [n, h, w]: [n].

    A skeleton lies on whole pixels, up to half a pixel beside the middle of its stroke. The
    distance grows by one px per px on the way from the contour to the middle and falls as fast
    behind it: its value one step further away from the nearest contour says where the middle is.
    """
    mosaic, owner = _mosaic(grey)
    skeleton = skeletonize(mosaic >= EDGE)
    points = np.argwhere(skeleton).astype(np.float64)
    if not len(points):
        return np.full(len(grey), np.nan)
    edge = contour(mosaic)
    tree = cKDTree(edge, balanced_tree=False, compact_nodes=False)
    near, index = tree.query(points)
    step = np.minimum(near, 0.5)  # never beyond the other side
    with np.errstate(invalid="ignore", divide="ignore"):
        away = np.nan_to_num((points - edge[index]) / near[:, None])
    further, _ = tree.query(points + step[:, None] * away)
    middle = near + np.clip((further - near + step) / 2, 0, step)
    image = owner[skeleton]
    count = np.bincount(image, minlength=len(grey))
    total = np.bincount(image, middle, minlength=len(grey))
    return 2 * np.divide(total, count, out=np.full(len(grey), np.nan), where=count > 0)


def shape_overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much two images [n, h, w] are one shape moved: the percent of the ink of either that both
    share where they fit best, [n]; NaN where one has no ink.

    Ink is what is half as bright as the image's brightest. Enlarged twice, images moved by any
    part of a pixel share about 90 %; blurred digits turned by 5 degrees or sheared by 0.1 share 80,
    enlarged by a tenth 73, other digits 30.
    """
    parts = []
    for start in range(0, len(first), BLOCK):
        some = [enlarged(images[start : start + BLOCK]) for images in (first, second)]
        ink = [(one >= EDGE * one.max((1, 2), keepdims=True)) & (one >= FAINTEST) for one in some]
        size = [2 * side for side in ink[0].shape[1:]]  # room for every shift
        ahead, back = (np.fft.rfft2(one, size) for one in ink)
        shared = np.fft.irfft2(ahead * back.conj(), size).max(axis=(1, 2))
        one, other = (np.where(one.any((1, 2)), one.sum((1, 2)), np.nan) for one in ink)
        parts.append(100 * shared / (one + other - shared))
    return np.concatenate(parts)


def enlarged(images: np.ndarray) -> np.ndarray:
    """Twice as high and wide, each pixel's brightness at its own place."""
    return zoom(images, (1, 2, 2), order=1, grid_mode=True, mode="nearest")


def contour(picture: np.ndarray) -> np.ndarray:
    """Where the brightness of [h, w] passes `EDGE` between neighbouring pixels: [m, 2] (y, x)."""
    crossings = []
    for axis in (0, 1):
        first, second = np.delete(picture, -1, axis), np.delete(picture, 0, axis)
        at = np.argwhere((first >= EDGE) != (second >= EDGE))
        one, two = first[tuple(at.T)], second[tuple(at.T)]
        points = at.astype(np.float64)
        points[:, axis] += (one - EDGE) / (one - two)
        crossings.append(points)
    return np.concatenate(crossings)


def _mosaic(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images [n, h, w] side by side with a dark frame each, and the number of each pixel's image"""
    num_images, height, width = images.shape
    across = max(1, int(np.ceil(np.sqrt(num_images))))
    down = -(-num_images // across)
    missing = down * across - num_images
    padded = np.pad(images, ((0, missing), (1, 1), (1, 1)))
    tiles = padded.reshape(down, across, height + 2, width + 2).swapaxes(1, 2)
    owner = np.arange(down * across).reshape(down, 1, across, 1)
    shape = (down * (height + 2), across * (width + 2))
    return tiles.reshape(shape), np.broadcast_to(owner, tiles.shape).reshape(shape)
