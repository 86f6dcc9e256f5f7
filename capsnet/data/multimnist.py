"""MultiMNIST: two digits of different classes over each other (paper, section 6).

Each digit is shifted by up to `max_shift` pixels in each direction, on its own, on a canvas that
leaves room for it; pixels are added and clipped at 255. The random numbers are drawn where
`generator` lives (the CPU: the same numbers on every machine), the pixels are moved where the
images live.
"""

from typing import NamedTuple

import torch
from torch import Generator, Tensor


class Classes(NamedTuple):
    """Digits by class, on the CPU: `labels` [n] as they stand, `order` [n] of the digits class by
    class, and of each class its `counts` and `starts` in that order; all int64.
    """

    labels: Tensor
    order: Tensor
    counts: Tensor
    starts: Tensor


class Composition(NamedTuple):
    """Canvases uint8 [b, h, w], sources uint8 [b, k, h, w], labels int64 [b, k]."""

    canvases: Tensor
    sources: Tensor
    labels: Tensor


def compose(
    images: Tensor, labels: Tensor, base: Tensor, *, max_shift: int, generator: Generator
) -> Composition:
    """Lay over each base digit another digit of a different class, both shifted (paper: 4 px).

    `images` uint8 [n, 28, 28] and `labels` int64 [n] are one split's digits, `base` int64 [b] picks
    the first digit of each pair; the second is drawn evenly from all digits of the other classes.
    The canvas is 28 + 2 max_shift pixels wide. Raises ValueError when a base digit's class is the
    only one.
    """
    index = torch.stack([base, draw_partners(sort_classes(labels), base, generator)], dim=1)
    canvas_size = images.shape[-1] + 2 * max_shift
    return place(images, labels, index, draw_shifts(index, max_shift, generator), canvas_size)


def sort_classes(labels: Tensor) -> Classes:
    """What `draw_partners` needs of the labels int64 [n]: once for all batches."""
    labels = labels.cpu()
    counts = labels.bincount()
    return Classes(labels, labels.argsort(stable=True), counts, counts.cumsum(0) - counts)


def draw_partners(classes: Classes, base: Tensor, generator: Generator) -> Tensor:
    """Draw for each base digit [b] one of another class, evenly among all of them: int64 [b]."""
    base_class = classes.labels[base.cpu()]
    block = classes.counts[base_class]
    others = len(classes.labels) - block
    if (others == 0).any():
        raise ValueError("every digit has the same class: MultiMNIST needs digits of two classes")
    # With the digits sorted by class, the other classes are all positions but one block: draw among
    # n - block positions and step over the block. No digit is ever rejected, so the count of draws
    # is fixed.
    uniform = torch.rand(
        len(base), generator=generator, dtype=torch.float64, device=generator.device
    )
    position = (uniform.cpu() * others).long().clamp_(max=others - 1)
    return classes.order[position + (position >= classes.starts[base_class]) * block]


def draw_shifts(index: Tensor, max_shift: int, generator: Generator) -> Tensor:
    """A shift (down, right) in pixels for each digit of `index` [b, k]: int64 [b, k, 2], drawn
    evenly from -max_shift..max_shift where the generator lives.
    """
    size = (*index.shape, 2)
    return torch.randint(
        -max_shift, max_shift + 1, size, generator=generator, device=generator.device
    )


def place(
    images: Tensor, labels: Tensor, index: Tensor, shifts: Tensor, canvas_size: int
) -> Composition:
    """Put the digits `index` [b, k] on canvases, each moved by its shift [b, k, 2].

    Shift 0 is the centre; what leaves the canvas is cut off, what enters it is black.
    """
    index, shifts = index.to(images.device), shifts.to(images.device)
    sources = shift(images[index], shifts, canvas_size)
    canvases = sources.sum(dim=1, dtype=torch.int32).clamp_(max=255).to(torch.uint8)
    return Composition(canvases, sources, labels[index])


def shift(images: Tensor, shifts: Tensor, canvas_size: int) -> Tensor:
    """Move images [..., h, w] by whole pixels `shifts` [..., 2] (down, right) onto black square
    canvases.
    """
    height, width = images.shape[-2:]
    canvas = torch.arange(canvas_size, device=images.device)
    rows = (
        canvas - (canvas_size - height) // 2 - shifts[..., 0, None]
    )  # [..., canvas]: where it comes from
    columns = canvas - (canvas_size - width) // 2 - shifts[..., 1, None]
    inside = ((rows >= 0) & (rows < height))[..., :, None] & ((columns >= 0) & (columns < width))[
        ..., None, :
    ]
    source = (
        rows.clamp(0, height - 1)[..., :, None] * width + columns.clamp(0, width - 1)[..., None, :]
    )
    moved = (
        images.flatten(-2).gather(-1, source.flatten(-2)).unflatten(-1, (canvas_size, canvas_size))
    )
    return moved * inside
