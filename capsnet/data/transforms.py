"""Affine transforms about the centre of the image, for the test of robustness, and distortions.

The paper trains with shifts only; `distort` is the option `data.augment`. `affnist_like` makes
images like those of affNIST (Tieleman, https://www.cs.toronto.edu/~tijmen/affNIST/; paper, section
5.2).
"""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

# affNIST draws each number independently and uniformly from its range.
AFFNIST_SIZE = 40  # pixels, both sides of the canvas
AFFNIST_ROTATION = 20.0  # degrees, from -20 to 20
AFFNIST_SHEAR = 0.2  # from -0.2 to 0.2
AFFNIST_SCALE = (0.8, 1.2)  # vertical and horizontal
# `draw_distortions` draws uniformly, up to:
ROTATION = 10.0  # degrees
STRETCH = 0.1  # shear and relative change of height and width
ELASTIC = 1.5  # pixels that each of GRID x GRID control points moves, in both directions
GRID = 3


def affine(
    images: Tensor,
    *,
    rotation: float | Tensor = 0.0,
    shear: float | Tensor = 0.0,
    scale: float | Tensor | tuple[float | Tensor, float | Tensor] = 1.0,
    translation: tuple[float | Tensor, float | Tensor] = (0.0, 0.0),
    displacement: Tensor | None = None,
) -> Tensor:
    """Scale, then shear, rotate and translate images [n, h, w] or [n, c, h, w], uint8 or float.

    Each parameter is a number or a tensor [n]. `rotation`: degrees, anticlockwise. `shear`: pixels
    to the right per pixel above the centre. `scale`: one factor or (vertical, horizontal).
    `translation`: (down, right) in pixels. `displacement` [n, h, w, 2]: each pixel is read so many
    pixels further (right, down). Interpolation is bilinear, without antialiasing; outside is black.
    """
    vertical, horizontal = scale if isinstance(scale, tuple) else (scale, scale)
    parameters = (rotation, shear, vertical, horizontal, *translation)

    def on_device(value: float | Tensor) -> Tensor:
        """Float [1] or [n]. A number is filled in, not copied: a CUDA graph cannot capture that."""
        if isinstance(value, Tensor):
            return value.to(images.device, torch.float32)
        return torch.full((1,), value, dtype=torch.float32, device=images.device)

    inverse = _inverse(*(on_device(x).expand(len(images)) for x in parameters))
    height, width = images.shape[-2:]
    # grid_sample's unit is half the width or height, from the centre.
    half = torch.cat([on_device(x) for x in (width / 2, height / 2, 1.0)])
    theta = inverse * half / half[:2, None]
    grid = F.affine_grid(theta, [len(images), 1, height, width], align_corners=False)
    if displacement is not None:
        grid = grid + displacement / half[:2]
    pixels = images if images.ndim == 4 else images[:, None]
    moved = F.grid_sample(pixels.to(grid.dtype), grid, align_corners=False).view_as(images)
    return moved.to(images.dtype) if images.is_floating_point() else moved.round().to(images.dtype)


def _inverse(*parameters: Tensor) -> Tensor:
    """Matrices [n, 2, 3] from (right, down, 1) in the new image to (right, down) in the old one, in
    pixels from the centre.
    """
    rotation, shear, vertical, horizontal, down, right = parameters
    angle = rotation.deg2rad()
    cosine, sine = angle.cos(), angle.sin()
    # Undo the rotation, then the shear (down is positive), then the scale.
    from_right = torch.stack([cosine + shear * sine, shear * cosine - sine], dim=1)
    from_down = torch.stack([sine, cosine], dim=1)
    linear = torch.stack([from_right / horizontal[:, None], from_down / vertical[:, None]], dim=1)
    offset = -linear @ torch.stack([right, down], dim=1)[:, :, None]
    return torch.cat([linear, offset], dim=2)


def draw_distortions(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw numbers for `distort`, in thousandths: int64 [*shape, 4 + 2 GRID^2]. Whole numbers are
    the same on every device.
    """
    most = [ROTATION, STRETCH, STRETCH, STRETCH] + [ELASTIC] * 2 * GRID**2
    uniform = torch.rand(*shape, len(most), generator=generator, device=generator.device)
    return (1000 * (2 * uniform - 1) * torch.tensor(most, device=generator.device)).round().long()


def distort(images: Tensor, numbers: Tensor) -> Tensor:
    """Rotate, shear, stretch and bend images [n, (c,) h, w] by `draw_distortions`, [n, ...]."""
    rotation, shear, vertical, horizontal, *_ = (numbers / 1000).unbind(dim=1)
    control = (numbers[:, 4:] / 1000).view(-1, 2, GRID, GRID)
    displacement = F.interpolate(control, images.shape[-2:], mode="bilinear", align_corners=True)
    return affine(
        images,
        rotation=rotation,
        shear=shear,
        scale=(1 + vertical, 1 + horizontal),
        displacement=displacement.permute(0, 2, 3, 1),
    )


def draw_affnist(count: int, generator: Generator) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
    """Draw rotations, shears and scales for `affine`, on the device of the generator."""
    uniform = torch.rand(4, count, generator=generator, device=generator.device)
    rotation, shear = 2 * uniform[:2] - 1
    smallest, largest = AFFNIST_SCALE
    scale = tuple(smallest + (largest - smallest) * uniform[2:])
    return {"rotation": AFFNIST_ROTATION * rotation, "shear": AFFNIST_SHEAR * shear, "scale": scale}


def affnist_like(
    images: Tensor, generator: Generator, *, max_translation: float = float("inf")
) -> Tensor:
    """Deform images [n, (c,) h, w] as affNIST does and move each to a random position.

    A digit moves by at most `max_translation` pixels in each direction and stays on the canvas.
    """
    deformation = draw_affnist(len(images), generator)
    places = torch.rand(2, len(images), generator=generator, device=generator.device)
    ink = affine(images, **deformation) > 0
    ink = ink.any(dim=1) if ink.ndim == 4 else ink
    translation = []
    for dim, place in zip((2, 1), places.to(images.device), strict=True):  # down, then right
        inked = ink.any(dim=dim).int()  # argmax is the first maximum: the distance to the edge
        back = inked.argmax(dim=1).float().clamp(max=max_translation)
        ahead = inked.flip(1).argmax(dim=1).float().clamp(max=max_translation)
        translation.append((back + ahead) * place - back)
    return affine(images, **deformation, translation=tuple(translation))
