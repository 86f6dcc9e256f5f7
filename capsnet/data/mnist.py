"""The digits of MNIST as tensors, their validation split and their stratified subsets."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from capsnet.data.archives import ARCHIVES, NUM_CLASSES, read_idx


class Digits(NamedTuple):
    """Handwritten digits: images uint8 [n, 28, 28], 0 black to 255 white; labels int64 [n]."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:  # the number of digits, not of fields
        return self.labels.shape[0]

    def pick(self, picked: Tensor) -> "Digits":
        """Those at the positions `picked`, or where the mask `picked` is true."""
        return Digits(*(field[picked.to(field.device)] for field in self))

    def to(self, device: torch.device | str) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device))


def load_digits(folder: Path, split: str) -> Digits:
    """Read a split, "train" or "test", from MNIST's archives. Raises ValueError for wrong ones."""
    images_path, labels_path = (folder / name for name in ARCHIVES[split])
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise ValueError(f"{images_path}: shape {images.shape}, but digits are [n, 28, 28]")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{folder}: {len(images):,} {split} images but {len(labels):,} labels")
    if labels.size and labels.max() >= NUM_CLASSES:
        raise ValueError(f"{labels_path}: label {labels.max()}, but digits are 0 to 9")
    return Digits(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)))


def split_validation(
    digits: Digits, fraction: float, generator: Generator
) -> tuple[Digits, Digits]:
    """Draw `fraction` of the digits, the same share of each class: (training, validation).

    The training digits keep their order, the validation digits are shuffled.
    """
    size = round(len(digits) * fraction)
    shuffled = torch.randperm(len(digits), generator=generator)
    by_class = shuffled[digits.labels.cpu()[shuffled].argsort(stable=True)]
    even = (torch.arange(size) + 0.5) * (len(digits) / max(1, size))  # evenly spaced positions
    chosen = by_class[even.long()][torch.randperm(size, generator=generator)]
    left = torch.ones(len(digits), dtype=torch.bool)
    left[chosen] = False
    return digits.pick(left), digits.pick(chosen)


def stratified_subset(digits: Digits, size: int, generator: Generator) -> Digits:
    """Draw `size` digits, the same share of each class, in their original order.

    With equal generators a smaller subset is part of a larger one. Raises ValueError for more
    digits than there are.
    """
    if size > len(digits):
        wanted = f"at most {len(digits)}, the digits that are not for validation"
        raise ValueError(f"params.yaml: data.training_digits: got {size}, wanted {wanted}")
    shuffled = torch.randperm(len(digits), generator=generator)
    labels = digits.labels.cpu()[shuffled]
    counts = labels.bincount()
    place = torch.empty(len(digits), dtype=torch.float64)
    for label, count in enumerate(counts.tolist()):  # spread each class evenly over [0, 1]
        place[labels == label] = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return digits.pick(shuffled[place.argsort(stable=True)[:size]].sort().values)
