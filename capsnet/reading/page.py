"""Which ink of a page is the handwriting: brightness [h, w] -> ink [h, w] -> the mark of the digit.

The paper is brighter (or darker) than the strokes and may change from place to place: gradients,
shadows, a desk around the sheet. A closing, which fills what is narrower than its window, gives its
brightness. Lines that span the page and marks at its edge are set aside.
"""

from collections.abc import Iterator
from itertools import starmap

import numpy as np
from PIL import Image
from scipy import ndimage as ndi
from skimage.filters.rank import median
from skimage.morphology import convex_hull_image

FAINT = 0.1  # of full ink: fainter pixels do not count in the box around the ink
SPECK = 0.01  # of the ink of the largest stain: smaller stains are dropped
LEAST_PAGE = 64  # pixels: a smaller picture is no photograph, its border is its paper
GROWS = 1.2  # times the ink: strokes were wider than the window
LEAST_CONTRAST = 0.08  # between ink and paper; black to white is 1
GLARE = 0.03  # added to brightness before division: black is never quite black
STROKE = 0.3  # of full ink: fainter pixels connect no strokes, as printed lines would
SOLIDITY = 0.85  # of a sheet: its area as a share of its convex hull
CORNERS = (0, 0, -1, -1), (0, -1, 0, -1)
TOUCHING = np.ones((3, 3))  # also at corners
# Shares of the longer side of the page:
BLUR = 0.002  # against the noise of the sensor
WIDEST = 0.1, 0.3  # of a stroke
LINE = 0.012  # width of a printed line
GAP = 0.1  # in a line, where strokes cross it
LEAST_SPAN = 0.5  # of a printed line, or from the edge GAP
LEAST_MARK = 0.05  # of a digit, if something larger lies at the edge
# Shares of the longer side of the largest mark:
ABOVE, BESIDE = 0.2, 0.15  # closer marks are one, as a 5 and its bar; digits stand side by side
RIVAL = 0.5  # a mark so large, with RIVAL_MASS of the ink, might be the digit too
RIVAL_MASS = 0.2
SOLID = 0.4  # width of a stroke
SEVERAL = "several marks of about the same size: crop the picture to one"
NO_STROKES = "a solid shape, no strokes"


def find_ink(grey: np.ndarray) -> np.ndarray:
    """Ink float [h, w] in [0, 1] from brightness [h, w] in [0, 1].

    Marks away from the edge on local paper; without one, all that differs from the paper of the
    border, so that a digit may touch the edge. Raises ValueError without ink.
    """
    grey = grey.astype(np.float32)
    best, dark = None, strokes_are_dark(grey)
    if max(grey.shape) >= LEAST_PAGE and not cut_out_tightly(grey if dark else 1 - grey):
        for ink in starmap(inner_marks, ink_on_local_paper(grey if dark else 1 - grey)):
            if best is None or (ink is not None and ink.sum() > GROWS * best.sum()):
                best = ink
    return ink_on_even_paper(grey) if best is None else best


def cut_out_tightly(grey: np.ndarray) -> bool:
    """Whether light strokes reach all four sides. Then dark marks are what they enclose.

    Unlike strokes a sheet that reaches them, as one that lies turned on a desk, is convex.
    """
    light = grey - np.median(border(grey))
    if light.max() < max(LEAST_CONTRAST, -light.min()):
        return False
    light = light > light.max() / 2
    sides = light[0], light[-1], light[:, 0], light[:, -1]
    if not all(side.any() for side in sides) or light[CORNERS].sum() > 1:
        return False
    return ndi.binary_fill_holes(light).sum() < SOLIDITY * convex_hull_image(light).sum()


def border(grey: np.ndarray) -> np.ndarray:
    return np.concatenate([grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1]])


def ink_on_local_paper(grey: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """How much darker than the paper around it each pixel is, as a share of the paper [h, w];
    the same without the noise of single pixels.

    For each width of WIDEST: a narrow window follows narrow shadows, a wide one fills wide strokes.
    """
    side = max(grey.shape)
    smooth = ndi.gaussian_filter(grey, BLUR * side)
    for width in WIDEST:
        paper = ndi.grey_closing(smooth, odd(width * side)) + GLARE
        yield above_grain(1 - (grey + GLARE) / paper), above_grain(1 - (smooth + GLARE) / paper)


def above_grain(ink: np.ndarray) -> np.ndarray:
    some = ink[::3, ::3]  # medians take long
    middle = float(np.median(some))  # not 0: the closing follows the brightest grains
    return (ink - middle - 3 * float(np.median(np.abs(some - middle)))).clip(0)


def strokes_are_dark(grey: np.ndarray) -> bool:
    """Strokes are narrow, and differ from the median of a large window, which is paper."""
    small = np.asarray(Image.fromarray(grey).reduce(max(1, max(grey.shape) // 64))).clip(0, 1)
    side = max(small.shape)
    paper = median((255 * small).astype(np.uint8), np.ones((odd(side / 2),) * 2)) / 255
    window = odd(WIDEST[0] * 2 * side)
    dark = np.minimum(ndi.grey_closing(small, window) - small, paper - small).clip(0)
    light = np.minimum(small - ndi.grey_opening(small, window), small - paper).clip(0)
    return bool(np.square(dark).sum() >= np.square(light).sum())


def odd(pixels: float) -> int:
    return max(3, 2 * int(pixels / 2) + 1)


def full_ink(ink: np.ndarray) -> float:
    return float(np.percentile(ink[ink > ink.max() / 2], 75))  # not only the darkest pixel


def inner_marks(ink: np.ndarray, smooth: np.ndarray) -> np.ndarray | None:
    """Ink of the marks away from the edge, full ink 1. None if there is none of some size, or a
    much larger mark at the edge, other than a desk or a shadow.
    """
    if smooth.max() < LEAST_CONTRAST:
        return None
    strokes = smooth > STROKE * full_ink(smooth)
    strokes &= ~printed_lines(strokes)
    marks, _ = ndi.label(strokes, TOUCHING)
    boxes = ndi.find_objects(marks)
    at_edge = np.array([touches(box, ink.shape) for box in boxes], dtype=bool)
    sizes = np.array([longer_side(box) for box in boxes])
    inner = np.flatnonzero(~at_edge)
    if not len(inner) or sizes[inner].max() < LEAST_MARK * max(ink.shape):
        return None
    strength = ndi.mean(ink, marks, np.arange(1, len(boxes) + 1)) / full_ink(ink)
    rivals = at_edge & (RIVAL * sizes > sizes[inner].max()) & (strength > RIVAL)
    corners = marks[CORNERS]
    if any(n + 1 not in corners and not spans(boxes[n], ink.shape) for n in np.flatnonzero(rivals)):
        return None
    ink = only(ink, np.isin(marks, inner + 1))
    return without_specks((ink / full_ink(ink)).clip(0, 1))


def printed_lines(strokes: np.ndarray) -> np.ndarray:
    """Pixels of thin level or upright lines that span the page or enter from its edge: [h, w]."""
    side, found = max(strokes.shape), np.zeros_like(strokes)
    for along, length in ((1, strokes.shape[1]), (0, strokes.shape[0])):
        across, gap = [1, 1], [3, 3]
        across[1 - along], gap[along] = max(3, round(LINE * side) + 1), odd(GAP * side)
        thin = strokes & ~ndi.grey_opening(strokes.view(np.uint8), across).astype(bool)
        lines, _ = ndi.label(ndi.maximum_filter(thin, gap))
        spans = [(box[along].start, box[along].stop) for box in ndi.find_objects(lines)]
        printed = [
            stop - start >= (GAP * 2 if start == 0 or stop == length else LEAST_SPAN) * length
            for start, stop in spans
        ]
        found |= thin & np.array([False, *printed])[lines]
    return found


def group(strokes: np.ndarray) -> tuple[np.ndarray, list[tuple[slice, slice]]]:
    """Number the marks, connected or close strokes: [h, w], 0 for paper; and the box of each."""
    connected, _ = ndi.label(strokes, TOUCHING)
    size = max(map(longer_side, ndi.find_objects(connected)), default=0)
    near, _ = ndi.label(ndi.maximum_filter(strokes, (odd(ABOVE * size), odd(BESIDE * size))))
    marks = near * strokes
    return marks, ndi.find_objects(marks)


def longer_side(box: tuple[slice, slice]) -> int:
    return max(side.stop - side.start for side in box)


def spans(box: tuple[slice, slice], shape: tuple[int, int]) -> bool:
    return any(side.stop - side.start == whole for side, whole in zip(box, shape, strict=True))


def touches(box: tuple[slice, slice], shape: tuple[int, int]) -> bool:
    return any(
        side.start == 0 or side.stop == whole for side, whole in zip(box, shape, strict=True)
    )


def choose_marks(ink: np.ndarray, most: int) -> tuple[np.ndarray, str | None]:
    """Ink [h, w] of the mark with the most ink, and of those that rival it, at most `most` marks;
    and why it is to be rejected: there are more, or it is a solid shape.
    """
    marks, boxes = group(ink > STROKE)
    mass = ndi.sum_labels(ink, marks, np.arange(1, len(boxes) + 1))
    order = np.argsort(-mass)
    least = RIVAL * longer_side(boxes[order[0]]), RIVAL_MASS * mass[order[0]]
    rivals = [n for n in order if longer_side(boxes[n]) >= least[0] and mass[n] >= least[1]]
    taken = only(ink, np.isin(marks, np.array(rivals[:most]) + 1))
    if len(rivals) > most:
        return taken, SEVERAL
    solid = stroke_width(taken > STROKE) > SOLID * longer_side(boxes[order[0]])
    return taken, NO_STROKES if solid else None


def stroke_width(strokes: np.ndarray) -> float:
    """Mean width in pixels: twice the area by the length of the outline."""
    return 2 * strokes.sum() / max(1, (strokes & ~ndi.binary_erosion(strokes)).sum())


def only(ink: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Ink [h, w] of the marks bool [h, w] with their soft edges."""
    return ink * ndi.maximum_filter(marks, odd(4 * BLUR * max(ink.shape)))


def ink_on_even_paper(grey: np.ndarray) -> np.ndarray:
    """Ink [h, w] darker or lighter than the border's median, whichever is more, or ValueError."""
    edge = border(grey)
    paper = float(np.median(edge))
    darker, lighter = paper - float(grey.min()), float(grey.max()) - paper
    contrast = max(darker, lighter)
    if contrast < LEAST_CONTRAST:
        raise ValueError("empty: nothing in it is darker or lighter than its border")
    ink = grey - paper if lighter > darker else paper - grey
    # The median allows ink on up to half of the border. A picture of noise keeps its peaks.
    grain = 3 * float(np.median(np.abs(edge - paper)))
    ink = (ink - min(grain, contrast / 2)).clip(0)
    ink = without_specks(without_desks((ink / full_ink(ink)).clip(0, 1)))
    if not (ink > STROKE).any():
        raise ValueError("empty: nothing on its paper differs from it")
    return ink


def without_desks(ink: np.ndarray) -> np.ndarray:
    """Drop marks that fill a side of the page, unless it is a digit cut out tightly."""
    marks, _ = ndi.label(ink > STROKE, TOUCHING)
    sides = [marks[0], marks[-1], marks[:, 0], marks[:, -1]]
    for number in set(np.concatenate(sides)) - {0}:
        filled = sum((side == number).mean() > 0.95 for side in sides)
        if filled > 1 or (filled and not all(number in side for side in sides)):
            ink = ink * (marks != number)
    return ink


def without_specks(ink: np.ndarray) -> np.ndarray:
    """Drop small stains, which would enlarge the box around the digits."""
    stains, _ = ndi.label(ink > FAINT, TOUCHING)
    mass = np.bincount(stains.ravel(), weights=ink.ravel())
    kept = mass >= SPECK * mass[1:].max(initial=0)
    kept[0] = True  # the paper and the faint edges of strokes
    return ink * kept[stains]
