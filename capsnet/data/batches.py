"""Batches of images. Batch t is a function of (seed, t) alone.

No state is carried from one batch to the next, so a run can stop and continue at any step. An image
of MNIST has one digit, of MultiMNIST two; other data sets have other objects in their place.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from capsnet.data import multimnist
from capsnet.data.mnist import Digits
from capsnet.data.transforms import draw_distortions

EVALUATION_BLOCK = 1000  # examples drawn together; the test pairs depend on it


class Batch(NamedTuple):
    """Images float [b, c, h, w] in [0, 1]; targets float [b, j], multi-hot; sources float
    [b, k, h, w], of colour [b, k, 3, h, w], the clean images of the k digits; labels int64 [b, k].
    """

    images: Tensor
    targets: Tensor
    sources: Tensor
    labels: Tensor

    def __len__(self) -> int:  # the number of images, not of fields
        return self.labels.shape[0]


def seeded_generator(*key: int | str) -> Generator:
    """A CPU generator seeded by a hash of the key, so similar keys give unrelated numbers."""
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
    augment: bool = False,
    balance: bool = False,
) -> Iterator[Tensor]:
    """Draw the batches number `steps`, from 0: int64 [b, k, 3] on the CPU, the position of each
    digit in `digits` and its shift (down, right), followed by its distortion if `augment`. Raises
    ValueError if pairs need a second class.

    Each epoch has every digit once as the first digit, in a new order. With `balance` all digits
    are drawn, each class with the same probability.
    """
    classes = multimnist.sort_classes(digits.labels)
    for step in steps:
        base = epoch_order(len(digits), step * batch_size, batch_size, seed)
        generator = seeded_generator("batch", seed, step)
        if balance:
            index = multimnist.draw_evenly(classes, batch_size, num_digits, generator)
        else:
            index = _with_partners(classes, base, num_digits, generator)
        draws = _with_shifts(index, max_shift, generator)
        if augment:
            draws = torch.cat([draws, draw_distortions(draws.shape[:2], generator)], dim=-1)
        yield draws


def compose_batch(digits: Digits, draws: Tensor, *, image_size: int) -> Batch:
    """Make the batch of `draws` int64 [b, k, 3 or more], on the device of the digits."""
    distortions = draws[..., 3:] if draws.shape[-1] > 3 else None
    positions = draws[..., 0], draws[..., 1:3]
    canvases, sources, labels = multimnist.place(
        digits.images, digits.labels, *positions, image_size, distortions, digits.about.combine
    )
    size = len(labels), len(digits.classes)
    targets = torch.zeros(size, device=labels.device).scatter_(1, labels, 1.0)
    canvases = canvases.unsqueeze(1) if canvases.ndim == 3 else canvases
    return Batch(canvases / 255, targets, sources / 255, labels)


def training_batches(
    digits: Digits, steps: Iterable[int], *, image_size: int, **task: int
) -> Iterator[Batch]:
    """Compose the batches of `training_draws`, with the same arguments."""
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
) -> Iterator[Batch]:
    """The first `num_examples` of a fixed set, the same for every run.

    The first digit of example n is digit n modulo the number of digits. Blocks of 1,000 examples
    are drawn whole, each from a generator seeded by its position, so `batch_size` and
    `num_examples` change no example. On other devices than CPUs a batch is a whole block.
    """
    classes = multimnist.sort_classes(digits.labels)
    if digits.images.device.type != "cpu":
        batch_size = EVALUATION_BLOCK
    for block in range(0, num_examples, EVALUATION_BLOCK):
        base = torch.arange(block, block + EVALUATION_BLOCK) % len(digits)
        generator = seeded_generator("evaluation", seed, block)
        index = _with_partners(classes, base, num_digits, generator)
        draws = _with_shifts(index, max_shift, generator)
        whole = compose_batch(digits, draws, image_size=image_size)
        end = min(EVALUATION_BLOCK, num_examples - block)
        for first in range(0, end, batch_size):
            yield Batch(*(field[first : min(first + batch_size, end)] for field in whole))


def epoch_order(num_digits: int, start: int, count: int, seed: int) -> Tensor:
    """Positions start to start + count in the sequence of shuffled epochs: int64 [count]."""
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


def _with_partners(classes, base: Tensor, num_digits: int, generator: Generator) -> Tensor:
    others = [multimnist.draw_partners(classes, base, generator) for _ in range(num_digits - 1)]
    return torch.stack([base, *others], dim=1)


def _with_shifts(index: Tensor, max_shift: int, generator: Generator) -> Tensor:
    shifts = multimnist.draw_shifts(index, max_shift, generator)
    return torch.cat([index.unsqueeze(-1), shifts], dim=-1)
