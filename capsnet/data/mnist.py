"""Images as tensors, as four IDX archives, their validation split and their stratified subsets."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from capsnet.data.archives import ARCHIVES, TEN_DIGITS, read_idx, write_idx

ABOUT = "about.json"  # beside the archives, unless they are ten digits like MNIST's


class About(NamedTuple):
    """Names of the classes; how overlapping images combine, "sum" (clipped) or "max"; size and
    background of pictures that are prepared as those of a folder are, None for handwriting; what an
    image shows; the longer side of the box around it in pixels, the median; what lies in the middle
    of an image, the centre of "mass" or of the "box".
    """

    classes: tuple[str, ...] = TEN_DIGITS
    combine: str = "sum"
    pictures: tuple[int, str] | None = None
    noun: str = "digit"
    box: int = 20
    centre: str = "mass"

    @classmethod
    def of(cls, found: Mapping[str, object]) -> "About":
        """From JSON. Raises TypeError for an unknown field."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in found.items()})

    def differing(self) -> dict[str, object]:
        """The fields that differ from MNIST's."""
        return {k: v for k, v in self._asdict().items() if v != About._field_defaults[k]}


class Digits(NamedTuple):
    """Images uint8 [n, h, w], or [n, 3, h, w] of colour, 0 black to 255 white; labels int64 [n]."""

    images: Tensor
    labels: Tensor
    about: About = About()

    def __len__(self) -> int:  # the number of images, not of fields
        return self.labels.shape[0]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.about.classes

    @property
    def num_channels(self) -> int:
        return self.images.shape[1] if self.images.ndim == 4 else 1

    def arguments(self) -> dict[str, int]:
        """Arguments of a network for these images that differ from those for MNIST."""
        found = {"num_classes": len(self.classes), "num_channels": self.num_channels}
        usual = {"num_classes": len(TEN_DIGITS), "num_channels": 1}
        return {name: value for name, value in found.items() if value != usual[name]}

    def pick(self, picked: Tensor) -> "Digits":
        """Those at the positions `picked`, or where the mask `picked` is true."""
        return Digits(*(field[picked.to(field.device)] for field in self[:2]), self.about)

    def to(self, device: torch.device | str) -> "Digits":
        return Digits(self.images.to(device), self.labels.to(device), self.about)


def load_digits(folder: Path, split: str) -> Digits:
    """Read a split, "train" or "test", from its archives. Raises ValueError for wrong ones."""
    images_path, labels_path = (folder / name for name in ARCHIVES[split])
    images, labels = read_idx(images_path), read_idx(labels_path)
    path = folder / ABOUT
    try:
        about = About.of(json.loads(path.read_text()) if path.exists() else {})
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}: make it again with `dvc repro download`") from None
    if images.ndim not in (3, 4) or images.shape[-1] != images.shape[-2]:
        raise ValueError(f"{images_path}: shape {images.shape}, wanted [n, (3,) size, size]")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{folder}: {len(images):,} {split} images but {len(labels):,} labels")
    if labels.size and labels.max() >= len(about.classes):
        raise ValueError(f"{labels_path}: label {labels.max()} of {len(about.classes)} classes")
    return Digits(torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64)), about)


def save_digits(folder: Path, splits: dict[str, Digits]) -> None:
    """Write the archives that are not there yet, as `load_digits` reads them."""
    for split, digits in splits.items():
        for name, field in zip(ARCHIVES[split], digits[:2], strict=True):
            if not (folder / name).exists():
                write_idx(folder / name, field.numpy())
        if differing := digits.about.differing():
            (folder / ABOUT).write_text(json.dumps(differing, ensure_ascii=False) + "\n")


def split_validation(
    digits: Digits,
    fraction: float,
    generator: Generator,
    *,
    name: str = "data.validation_fraction",
) -> tuple[Digits, Digits]:
    """Draw `fraction` of the digits, the same share of each class: (training, validation).

    The training digits keep their order, the validation digits are shuffled. Raises ValueError with
    the parameter's `name` for a fraction above 0 that is no digit.
    """
    size = round(len(digits) * fraction)
    if fraction > 0 and size == 0:
        least = f"at least {1 / max(1, len(digits)):.2g}, or 0.0"
        raise ValueError(f"{name}: {fraction} of {len(digits)} images is none, wanted {least}")
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
