"""Morphometry of handwriting: stroke thickness, slant, size, position, sharpness.

After Morpho-MNIST (Castro, Tan, Kainz, Konukoglu & Glocker, JMLR 2019, arXiv 1809.10780): thickness
is twice the mean distance from the skeleton to the edge, slant comes from the second moments, width
and height from the parallelogram that holds all but 1 % of the ink at either end.

Differences: reconstructions are grey and change by fractions of a pixel, so measures are relative
to the image's own brightness and use grey values or a subpixel contour, instead of enlarging and
thresholding. The skeleton is thinned instead of the medial axis, which has a spur for each bump of
the edge. Many images are measured at a time, on one mosaic.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.ndimage import zoom
from scipy.spatial import cKDTree
from skimage.morphology import skeletonize

FAINTEST = 0.1  # an image that is darker everywhere has no ink
EDGE = 0.5  # the contour, as a share of the image's greatest brightness
HAZE = 0.1  # share of the greatest brightness up to which a pixel is background
TAIL = 0.01  # share of the ink beyond either end of width and height (Morpho-MNIST)
BLOCK = 512  # images on one mosaic


class Shapes(NamedTuple):
    """The measures of images, each [n]; NaN where an image has no ink."""

    thickness: np.ndarray  # px, twice the mean distance from skeleton to half-bright contour
    slant: np.ndarray  # degrees, positive if the top leans to the right
    width: np.ndarray  # px along a row without the slant: the middle 98 % of the ink, over 0.98
    height: np.ndarray  # px along a column, likewise
    area: np.ndarray  # px^2; a pixel counts from 0 at 1/4 of the greatest brightness to 1 at 3/4
    horizontal_centre: np.ndarray  # px from the middle of the image to the right
    vertical_centre: np.ndarray  # px from the middle of the image upwards
    sharpness: np.ndarray  # 1/px, mean slope of brightness, weighted by itself; a step has 1


class Tones(NamedTuple):
    """The measures of images without one bright object on dark, each [n]: mean and standard
    deviation of the pixels.
    """

    brightness: np.ndarray
    contrast: np.ndarray


def tones(images: np.ndarray) -> Tones:
    """Measure each image of [n, h, w], floats in [0, 1]."""
    return Tones(images.mean(axis=(1, 2)), images.std(axis=(1, 2)))


def measure(images: np.ndarray) -> Shapes:
    """Measure each image of [n, h, w], floats in [0, 1]."""
    blocks = [images[at : at + BLOCK] for at in range(0, len(images), BLOCK)] or [images]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(_measure_block, blocks))
    return Shapes(*map(np.concatenate, zip(*parts, strict=True)))


def _measure_block(images: np.ndarray) -> Shapes:
    brightness = images.max(axis=(1, 2), initial=0)
    inked = brightness >= FAINTEST
    grey = np.zeros(images.shape, dtype=np.float32)
    np.divide(images, brightness[:, None, None], out=grey, where=inked[:, None, None])
    ink = np.maximum(grey - HAZE, 0) / (1 - HAZE)
    with np.errstate(invalid="ignore"):  # NaN without ink
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
    """Centre, px to the right and up, and shear, px to the right per px up: three [n].

    `ink` [n, h, w] sums to 1 in each image.
    """
    _, height, width = ink.shape
    right, up = np.arange(width) - (width - 1) / 2, (height - 1) / 2 - np.arange(height)
    columns, rows = ink.sum(axis=1), ink.sum(axis=2)
    across, above = columns @ right, rows @ up
    mixed = np.einsum("nhw,h,w->n", ink, up, right, optimize=True) - across * above
    spread = rows @ up**2 - above**2  # 0 for a line along one row, which has no slant
    shear = np.divide(mixed, spread, out=np.zeros_like(mixed), where=~(spread < 1e-6))
    return across, above, shear


def extents(
    ink: np.ndarray, centre: np.ndarray, shear: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Width and height in px of the middle 98 % of the ink without its shear: two [n].

    Each row is shifted back by its shear relative to the vertical `centre` [n]; a pixel between two
    columns is shared.
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
    """Subpixel position at which the running total [n, length + 1] reaches `share`: [n]."""
    at = np.clip((total < share).sum(axis=1) - 1, 0, profile.shape[1] - 1)[:, None]
    before, here = np.take_along_axis(total, at, 1), np.take_along_axis(profile, at, 1)
    return (at + (share - before) / np.where(here == 0, 1, here))[:, 0]


def sharpness(grey: np.ndarray) -> np.ndarray:
    """Mean slope, 1/px, weighted by itself, of images [n, h, w] with brightness up to 1: [n]."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)))
    down, right = np.diff(padded, axis=1)[:, :, :-1], np.diff(padded, axis=2)[:, :-1]
    squares = down**2 + right**2
    with np.errstate(invalid="ignore"):
        return squares.sum(axis=(1, 2)) / np.sqrt(squares).sum(axis=(1, 2))


def thickness(grey: np.ndarray) -> np.ndarray:
    """Twice the mean distance, px, from the skeleton to the contour of [n, h, w]: [n].

    Skeleton pixels lie up to half a pixel beside the middle of the stroke. The distance to the
    contour rises by one px per px up to the middle and falls behind it, so its value one step
    further from the nearest contour locates the middle.
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
    """Intersection over union of the ink of two images [n, h, w] at the best shift, in percent [n];
    NaN where one has no ink.

    Ink is at least half as bright as the brightest pixel. Images shifted by part of a pixel have
    about 90 %, digits rotated by 5 degrees or sheared by 0.1 have 80, different digits 30.
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
    """Twice as high and wide, by linear interpolation."""
    return zoom(images, (1, 2, 2), order=1, grid_mode=True, mode="nearest")


def contour(picture: np.ndarray) -> np.ndarray:
    """Points (y, x) where brightness crosses `EDGE` between adjacent pixels of [h, w]: [m, 2]."""
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
    """One picture of images [n, h, w] with dark frames, and the image index of each pixel."""
    num_images, height, width = images.shape
    across = max(1, int(np.ceil(np.sqrt(num_images))))
    down = -(-num_images // across)
    missing = down * across - num_images
    padded = np.pad(images, ((0, missing), (1, 1), (1, 1)))
    tiles = padded.reshape(down, across, height + 2, width + 2).swapaxes(1, 2)
    owner = np.arange(down * across).reshape(down, 1, across, 1)
    shape = (down * (height + 2), across * (width + 2))
    return tiles.reshape(shape), np.broadcast_to(owner, tiles.shape).reshape(shape)
