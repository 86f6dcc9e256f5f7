"""Digits on a device -> batches. Batch t is a function of (seed, t) alone.

So a run can be stopped and continued at any step and is the same on one core or eight: no state is
carried from one batch to the next, no worker draws a number. MNIST is the case of one digit to an
image, MultiMNIST of two.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from capsnet.data.archives import NUM_CLASSES
from capsnet.data.mnist import Digits
from capsnet.data.multimnist import (
    Classes,
    Composition,
    draw_partners,
    draw_shifts,
    place,
    sort_classes,
)

EVALUATION_BLOCK = 1000  # examples drawn together; part of the protocol: it decides the test pairs


class Batch(NamedTuple):
    """Images float [b, 1, h, w] in [0, 1]; targets float [b, j] multi-hot over the classes; sources
    float [b, k, h, w], one clean image for each of the k digits; labels int64 [b, k].
    """

    images: Tensor
    targets: Tensor
    sources: Tensor
    labels: Tensor

    def __len__(self) -> int:  # the number of images, not of fields
        return self.labels.shape[0]


def seeded_generator(*key: int | str) -> Generator:
    """A CPU generator seeded by a hash of the key: neighbouring keys give unrelated numbers."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def training_draws(
    digits: Digits,
    steps: Iterable[int],
    *,
    seed: int,
    batch_size: int,
    num_digits: int,
    max_shift: int,
) -> Iterator[Tensor]:
    """What `compose_batch` needs for the batches of these numbers (from 0): int64 [b, k, 3] on the
    CPU, of each digit its place in `digits` and its shift (down, right).

    Each epoch meets every digit once as the first digit, in a new order.
    """
    classes = sort_classes(digits.labels)
    for step in steps:
        base = epoch_order(len(digits), step * batch_size, batch_size, seed)
        yield _draw(classes, base, num_digits, max_shift, seeded_generator("batch", seed, step))


def compose_batch(digits: Digits, draws: Tensor, *, image_size: int) -> Batch:
    """The images of `draws` int64 [b, k, 3], on the device of the digits."""
    return to_batch(place(*digits, draws[..., 0], draws[..., 1:], image_size))


def training_batches(
    digits: Digits, steps: Iterable[int], *, image_size: int, **task: int
) -> Iterator[Batch]:
    """The batches of `training_draws`, which takes the same arguments."""
    for draws in training_draws(digits, steps, **task):
        yield compose_batch(digits, draws, image_size=image_size)


def evaluation_batches(
    digits: Digits,
    *,
    seed: int,
    num_examples: int,
    batch_size: int,
    num_digits: int,
    image_size: int,
    max_shift: int,
    start: int = 0,
) -> Iterator[Batch]:
    """A fixed set of examples, the same for every run and machine and for every batch size.

    Example n has digit n (modulo the number of digits) as its first, so every digit is met equally
    often. A block of 1,000 is always drawn whole, from a generator seeded by its place: fewer
    examples are the first of more, and those from `start`, a multiple of 1,000, come at once.
    `batch_size` is for CPUs, where small batches are as fast and take less memory; on other devices
    a batch is a whole block. Raises ValueError for another start.
    """
    if start % EVALUATION_BLOCK:
        raise ValueError(f"start is {start}, wanted a multiple of {EVALUATION_BLOCK}")
    classes = sort_classes(digits.labels)
    if digits.images.device.type != "cpu":
        batch_size = EVALUATION_BLOCK
    for block in range(start, num_examples, EVALUATION_BLOCK):
        base = torch.arange(block, block + EVALUATION_BLOCK) % len(digits)
        generator = seeded_generator("evaluation", seed, block)
        draws = _draw(classes, base, num_digits, max_shift, generator)
        whole = compose_batch(digits, draws, image_size=image_size)
        end = min(EVALUATION_BLOCK, num_examples - block)
        for first in range(0, end, batch_size):
            yield Batch(*(field[first : min(first + batch_size, end)] for field in whole))


def epoch_order(num_digits: int, start: int, count: int, seed: int) -> Tensor:
    """Positions start .. start + count of an endless row of shuffled epochs: int64 [count]."""
    parts = []
    while count > 0:
        epoch, offset = divmod(start, num_digits)
        order = _epoch(num_digits, epoch, seed)
        parts.append(order[offset : offset + count])
        start += len(parts[-1])
        count -= len(parts[-1])
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _epoch(num_digits: int, epoch: int, seed: int) -> Tensor:
    return torch.randperm(num_digits, generator=seeded_generator("epoch", seed, epoch))


def to_batch(composition: Composition) -> Batch:
    """Bytes to floats in [0, 1], labels to multi-hot targets."""
    canvases, sources, labels = composition
    targets = torch.zeros(len(labels), NUM_CLASSES, device=labels.device).scatter_(1, labels, 1.0)
    return Batch(canvases.unsqueeze(1) / 255, targets, sources / 255, labels)


def _draw(
    classes: Classes, base: Tensor, num_digits: int, max_shift: int, generator: Generator
) -> Tensor:
    others = [draw_partners(classes, base, generator) for _ in range(num_digits - 1)]
    index = torch.stack([base, *others], dim=1)
    return torch.cat([index.unsqueeze(-1), draw_shifts(index, max_shift, generator)], dim=-1)
