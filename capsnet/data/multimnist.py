"""MultiMNIST: two overlapping digits of different classes (paper, section 6).

Each digit is shifted on its own by up to `max_shift` pixels in each direction, on a canvas with
room for the shift. Pixels are added and clipped at 255. Random numbers are drawn on the device of
`generator` (the CPU: the same numbers on every machine), pixels are moved on that of the images.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor

from capsnet.data.transforms import distort


class Classes(NamedTuple):
    """Digits sorted by class, int64 on the CPU: `labels` [n] in the original order, `order` [n] of
    the digits sorted by class, and the `counts` and `starts` [j] of the classes in that order.
    """

    labels: Tensor
    order: Tensor
    counts: Tensor
    starts: Tensor


class Composition(NamedTuple):
    """Canvases uint8 [b, h, w], sources uint8 [b, k, h, w], labels int64 [b, k]; images of colour
    have the axis c before h.
    """

    canvases: Tensor
    sources: Tensor
    labels: Tensor


def compose(
    images: Tensor, labels: Tensor, base: Tensor, *, max_shift: int, generator: Generator
) -> Composition:
    """Overlay each base digit with a digit of another class, both shifted (paper: 4 px).

    `images` uint8 [n, 28, 28] and `labels` int64 [n] are the digits of one split, `base` int64 [b]
    the first digits of the pairs. The second is drawn uniformly from all digits of the other
    classes. The canvas is 28 + 2 max_shift pixels wide. Raises ValueError for a single class.
    """
    index = torch.stack([base, draw_partners(sort_classes(labels), base, generator)], dim=1)
    canvas_size = images.shape[-1] + 2 * max_shift
    return place(images, labels, index, draw_shifts(index, max_shift, generator), canvas_size)


def sort_classes(labels: Tensor) -> Classes:
    """Prepare labels int64 [n] for `draw_partners`, once for all batches."""
    labels = labels.cpu()
    counts = labels.bincount()
    return Classes(labels, labels.argsort(stable=True), counts, counts.cumsum(0) - counts)


def draw_partners(classes: Classes, base: Tensor, generator: Generator) -> Tensor:
    """Draw for each base digit [b] a digit of another class, uniformly from all: int64 [b]."""
    base_class = classes.labels[base.cpu()]
    block = classes.counts[base_class]
    others = len(classes.labels) - block
    if (others == 0).any():
        raise ValueError(f"all {len(classes.labels)} images are of one class: pairs need two")
    # Sorted by class, the other classes are all positions but one block: draw among n - block
    # positions and skip the block. Nothing is rejected, so the number of draws is fixed.
    uniform = torch.rand(
        len(base), generator=generator, dtype=torch.float64, device=generator.device
    )
    position = (uniform.cpu() * others).long().clamp_(max=others - 1)
    return classes.order[position + (position >= classes.starts[base_class]) * block]


def draw_evenly(classes: Classes, count: int, num_digits: int, generator: Generator) -> Tensor:
    """Draw `num_digits` classes without repetition, each with the same probability, and of each a
    digit, `count` times: int64 [count, k].
    """
    present = classes.counts.nonzero()[:, 0]
    if len(present) < num_digits:
        raise ValueError(f"all {len(classes.labels)} images are of one class: pairs need two")
    drawn = torch.rand(count, len(present), generator=generator).argsort(dim=1)[:, :num_digits]
    kinds = present[drawn]
    place = torch.rand(kinds.shape, generator=generator, dtype=torch.float64)
    return classes.order[classes.starts[kinds] + (place * classes.counts[kinds]).long()]


def draw_shifts(index: Tensor, max_shift: int, generator: Generator) -> Tensor:
    """Draw a shift (down, right) from -max_shift..max_shift for each of [b, k]: int64 [b, k, 2]."""
    size, device = (*index.shape, 2), generator.device
    return torch.randint(-max_shift, max_shift + 1, size, generator=generator, device=device)


def place(
    images: Tensor,
    labels: Tensor,
    index: Tensor,
    shifts: Tensor,
    canvas_size: int,
    distortions: Tensor | None = None,
    combine: str = "sum",
) -> Composition:
    """Put the digits `index` [b, k] on canvases, each shifted by `shifts` [b, k, 2] pixels, after
    its distortion [b, k, ...] if there are any, see `capsnet.data.transforms.distort`. Pixels of
    the canvas are the `combine` "sum", clipped at 255, or "max" of the shifted digits.
    """
    index, shifts = index.to(images.device), shifts.to(images.device)
    digits = images[index]
    if distortions is not None:
        numbers = distortions.to(images.device).flatten(0, 1)
        digits = distort(digits.flatten(0, 1), numbers).view_as(digits)
    sources = shift(digits, shifts.unsqueeze(2) if digits.ndim == 5 else shifts, canvas_size)
    if combine == "max":
        canvases = sources.amax(dim=1)
    else:
        canvases = sources.sum(dim=1, dtype=torch.int32).clamp_(max=255).to(torch.uint8)
    return Composition(canvases, sources, labels[index])


def shift(images: Tensor, shifts: Tensor, canvas_size: int) -> Tensor:
    """Shift images [..., h, w] by whole pixels `shifts` [..., 2] (down, right) from the centre of
    black square canvases. Pixels that leave the canvas are lost. Dimensions of size 1 before the
    last one of `shifts` are broadcast.
    """
    height, width = images.shape[-2:]
    canvas = torch.arange(canvas_size, device=images.device)
    # The source pixel of each canvas pixel.
    rows = (canvas - (canvas_size - height) // 2 - shifts[..., 0, None])[..., :, None]
    columns = (canvas - (canvas_size - width) // 2 - shifts[..., 1, None])[..., None, :]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    source = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    source = source.flatten(-2).expand(*images.shape[:-2], -1)
    moved = images.flatten(-2).gather(-1, source)
    return moved.unflatten(-1, (canvas_size, canvas_size)) * inside
