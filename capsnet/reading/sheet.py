"""A sheet of paper that lies wholly in the picture: what surrounds it is no handwriting."""

import numpy as np
from PIL import Image
from scipy import ndimage as ndi
from skimage.morphology import convex_hull_image

SMALL = 96  # pixels, the longer side of the picture in which the sheet is looked for
STROKES = 9  # pixels there: closed, as they are no holes in the sheet
EDGE = 2  # pixels there, in which the brightness changes; a shadow or the lens takes longer
LEVELS = 12  # of brightness, from the darkest to the lightest paper
LEAST_AREA = 0.1  # of the picture: a light digit is smaller
LEAST_SOLIDITY = 0.95  # area as a share of the convex hull
STEP = 0.5  # of the brightness of the sheet, at most, is that of the desk; a shadow is lighter


def only_sheet(grey: np.ndarray) -> np.ndarray:
    """Brightness [h, w] with the edge of a sheet, its shadows and lines, continued over all that
    surrounds it. Without a sheet as it is.

    The darkest level comes first: at a lighter one a part in shadow would not be of the sheet.
    """
    factor = -(-max(grey.shape) // SMALL)
    paper = ndi.grey_closing(np.asarray(Image.fromarray(grey).reduce(factor)), STROKES)
    for level in np.linspace(paper.min(), paper.max(), LEVELS)[1:-1]:
        areas, _ = ndi.label(paper > level)
        area = areas == np.bincount(areas[areas > 0], minlength=1).argmax()
        if is_sheet(area, paper):
            outside = ~ndi.binary_erosion(area, iterations=EDGE)
            nearest = ndi.distance_transform_edt(
                outside, return_distances=False, return_indices=True
            )
            away = factor * (nearest - np.indices(area.shape))
            away = away.repeat(factor, 1).repeat(factor, 2)[:, : grey.shape[0], : grey.shape[1]]
            return grey[tuple(np.indices(grey.shape) + away)]
    return grey


def is_sheet(area: np.ndarray, paper: np.ndarray) -> bool:
    """Whether it is large, away from the edge of the picture, convex, and has a sharp edge."""
    at_edge = area[[0, -1]].any() or area[:, [0, -1]].any()
    if at_edge or area.mean() < LEAST_AREA:
        return False
    inside = area & ~ndi.binary_erosion(area, iterations=EDGE)
    outside = ~area & ndi.binary_dilation(area, iterations=EDGE)
    if np.median(paper[outside]) > STEP * np.median(paper[inside]):
        return False
    return bool(area.sum() > LEAST_SOLIDITY * convex_hull_image(area).sum())
