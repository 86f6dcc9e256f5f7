"""Affine transforms of digits: rotation, shear, scale, translation, about the centre of the image.

For the test of robustness, never for training: the paper trains with shifts alone. Deterministic,
each image with its own numbers, on the device of the images. `affnist_like` makes images as those
of affNIST (Tieleman, https://www.cs.toronto.edu/~tijmen/affNIST/), on which the paper tests
(section 5.2) a network that was trained with digits at random places of a 40x40 canvas.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

# affNIST's ranges, drawn evenly and each on its own; the digit stays on its canvas.
AFFNIST_SIZE = 40  # pixels, of its square canvas
AFFNIST_ROTATION = 20.0  # degrees, to either side
AFFNIST_SHEAR = 0.2  # to either side
AFFNIST_SCALE = (0.8, 1.2)  # vertically and horizontally


class Deformation(NamedTuple):
    """What changes the shape, float [n] each: rotation (degrees), shear, (vertical, horizontal)
    scale.
    """

    rotation: Tensor
    shear: Tensor
    scale: tuple[Tensor, Tensor]


def affine(
    images: Tensor,
    *,
    rotation: float | Tensor = 0.0,
    shear: float | Tensor = 0.0,
    scale: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    translation: tuple[float | Tensor, float | Tensor] = (0.0, 0.0),
) -> Tensor:
    """Scale, then shear, rotate and move images [n, h, w], uint8 or float: the same shape and type.

    Each number is one for all images or a tensor [n]. `rotation` is in degrees, anticlockwise;
    `shear` says how many pixels to the right a row moves for each pixel that it lies above the
    centre (positive leans to the right, as italics do); `scale` is one factor or (vertical,
    horizontal), above 1 enlarges; `translation` is (down, right) in pixels. Values between pixels
    are interpolated linearly, without a blur before shrinking; outside is black. Raises ValueError
    for a scale that is not positive.
    """
    vertical, horizontal = scale if isinstance(scale, tuple) else (scale, scale)
    numbers = (rotation, shear, vertical, horizontal, *translation)
    inverse = _inverse(*(_per_image(number, images) for number in numbers))
    height, width = images.shape[-2:]
    # grid_sample measures from the centre in half widths and half heights.
    half = torch.tensor([width / 2, height / 2, 1.0], device=images.device)
    theta = inverse * half / half[:2, None]
    grid = F.affine_grid(theta, [len(images), 1, height, width], align_corners=False)
    moved = F.grid_sample(images[:, None].to(grid.dtype), grid, align_corners=False)[:, 0]
    return moved.to(images.dtype) if images.is_floating_point() else moved.round().to(images.dtype)


def _per_image(number: float | Tensor, images: Tensor) -> Tensor:
    return torch.as_tensor(number, dtype=torch.float32, device=images.device).expand(len(images))


def _inverse(
    rotation: Tensor,
    shear: Tensor,
    vertical: Tensor,
    horizontal: Tensor,
    down: Tensor,
    right: Tensor,
) -> Tensor:
    """Where in the old image a pixel of the new one comes from: [n, 2, 3], times (right, down, 1)
    in pixels from the centre.
    """
    for scale in (vertical, horizontal):
        if not (scale > 0).all():
            raise ValueError(f"scale {scale.min():g}, but an image is scaled by more than 0")
    angle = rotation.deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    # Undo the rotation, then the shear (down is positive, so a row above has a negative number),
    # then the scale.
    from_right = torch.stack([cosine + shear * sine, shear * cosine - sine], dim=1)
    from_down = torch.stack([sine, cosine], dim=1)
    linear = torch.stack([from_right / horizontal[:, None], from_down / vertical[:, None]], dim=1)
    offset = -linear @ torch.stack([right, down], dim=1)[:, :, None]
    return torch.cat([linear, offset], dim=2)


def draw_affnist(count: int, generator: Generator) -> Deformation:
    """Draw `count` rotations, shears and scales as those of affNIST, where the generator lives."""
    uniform = torch.rand(4, count, generator=generator, device=generator.device)
    smallest, largest = AFFNIST_SCALE
    vertical, horizontal = smallest + (largest - smallest) * uniform[2:]
    rotation, shear = 2 * uniform[:2] - 1
    return Deformation(AFFNIST_ROTATION * rotation, AFFNIST_SHEAR * shear, (vertical, horizontal))


def affnist_like(
    images: Tensor, generator: Generator, *, max_translation: float = float("inf")
) -> Tensor:
    """Deform digits [n, h, w] as affNIST does and move each to a random place of the same canvas.

    A digit may stand wherever none of it leaves the canvas, at most `max_translation` pixels from
    where it was in each direction; a digit that has grown as large as the canvas stays where it is.
    """
    deformation = draw_affnist(len(images), generator)
    places = torch.rand(2, len(images), generator=generator, device=generator.device)
    ink = affine(images, **deformation._asdict()) > 0
    translation = []
    for dim, place in zip((2, 1), places.to(images.device), strict=True):  # down, then right
        back, ahead = free_way(ink.any(dim=dim))
        back, ahead = back.clamp(max=max_translation), ahead.clamp(max=max_translation)
        translation.append((back + ahead) * place - back)
    return affine(images, **deformation._asdict(), translation=tuple(translation))


def free_way(inked: Tensor) -> tuple[Tensor, Tensor]:
    """How many pixels the ink of rows or columns, bool [n, size], can move (back, ahead) until it
    touches the edge: two float [n]; zero for an image without ink.
    """
    back = inked.int().argmax(dim=1)  # of equal values argmax names the first
    ahead = inked.flip(1).int().argmax(dim=1)
    return back.float(), ahead.float()
