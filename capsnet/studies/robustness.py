"""Robustness of a network for one digit: error against rotation, shear, scale and translation.

Each transform alone, on the same test digits, so that a curve shows where the network gives in; and
all of them together, as in affNIST (paper, section 5.2), on digits of our own and on affNIST's
published files where they are. The network saw none of it in training but shifts by whole pixels.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from capsnet.data.affnist import load_affnist
from capsnet.data.batches import evaluation_batches, seeded_generator
from capsnet.data.mnist import Digits
from capsnet.data.multimnist import shift
from capsnet.data.transforms import AFFNIST_SIZE, affine, affnist_like
from capsnet.evaluation import judge
from capsnet.metrics import wilson_interval
from stages.output import write_csv

MEASURED = ["examples", "error", "error_low", "error_high"]
COLUMNS = ["transform", "amount", "unit", *MEASURED]
UNITS = {"rotation": "degrees", "shear": "px/px", "scale": "times", "translation": "px"}
AMOUNTS = {  # affNIST: -20 to 20, -0.2 to 0.2, 0.8 to 1.2, and all of the distances
    "rotation": (-60, -45, -30, -20, -15, 0, 15, 20, 30, 45, 60),
    "shear": (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6),
    "scale": (0.5, 0.65, 0.8, 1.0, 1.2, 1.35, 1.5),
    "translation": (0, 1, 2, 3, 4, 6, 8),
}
NEUTRAL = {"rotation": 0, "shear": 0, "scale": 1, "translation": 0}  # the image as it is
HEADLINES = {  # amounts that are averaged: the ends of affNIST's ranges
    "rotation_20_degrees": ("rotation", (-20, 20)),
    "shear_20_percent": ("shear", (-0.2, 0.2)),
    "scale_80_percent": ("scale", (0.8,)),
    "scale_120_percent": ("scale", (1.2,)),
    "translation_4_pixels": ("translation", (4,)),
}
DIRECTIONS = torch.tensor([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)])  # (down, right)
SMALL_CANVAS_MOVE = 2  # pixels, as in training: 28x28 leave no room for affNIST's translations


def measure_robustness(
    model: nn.Module,
    digits: Digits,
    *,
    dtype: torch.dtype,
    seed: int,
    num_examples: int,
    batch_size: int,
    image_size: int,
    max_shift: int,
    affnist: Path | None,
    table: Path,
    name: str,
) -> dict[str, object]:
    """Test the network on the first `num_examples` digits; write `table`, return the main numbers.

    `image_size` and `max_shift` are those of the task's test. Digits are transformed in the middle
    of the canvas and then placed as the task places them; for translation they are moved from the
    middle of it by whole pixels up, down, left or right, drawn for each digit, and for affNIST's
    transforms they stand where those put them. On a canvas too small for affNIST's translations the
    test is called `affnist_like_2px`: moved by at most 2 pixels. The network is tested on all
    images of `affnist` (one .mat file has 10,000) when it takes images of their size.
    """
    count = min(num_examples, len(digits))
    images, labels = in_the_middle(digits.images[:count], image_size), digits.labels[:count]
    test = partial(error_of, model, dtype=dtype, seed=seed, batch_size=batch_size)
    rows = curves(test, images, labels, seed=seed, max_shift=max_shift)
    together, moved = all_together(images, seed)
    rows.append(row(together, None, test(moved, labels)))
    if affnist is not None and image_size == AFFNIST_SIZE:
        published = load_affnist(affnist).to(images.device)
        rows.append(row("affnist", None, test(*published)))
    measured = pd.DataFrame(rows, columns=COLUMNS)
    write_csv(table, measured)
    results = headline(measured)
    print(f"{name}: {together} error {results[together]['error']:.2f} %")
    return results


def curves(
    test: Callable[..., dict], images: Tensor, labels: Tensor, *, seed: int, max_shift: int
) -> list[dict[str, object]]:
    """The rows of all points; images as they are, placed in the same way, are tested only once."""
    rows, plain = [], {}
    for transform, amount, moved in transformed(images, seed):
        places = 0 if transform == "translation" else max_shift
        neutral = amount == NEUTRAL[transform]
        found = plain.get(places) if neutral else None
        found = found or test(moved, labels, max_shift=places)
        if neutral:
            plain[places] = found
        rows.append(row(transform, amount, found))
    return rows


def error_of(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    dtype: torch.dtype,
    seed: int,
    batch_size: int,
    max_shift: int = 0,
) -> dict[str, float]:
    """Test all images [n, h, h], moved by up to `max_shift` pixels: image i always by the same."""
    batches = evaluation_batches(
        Digits(images, labels),
        seed=seed,
        num_examples=len(labels),
        batch_size=batch_size,
        num_digits=1,
        image_size=images.shape[-1],
        max_shift=max_shift,
    )
    outcome = judge(model, batches, dtype)
    interval = wilson_interval(int((~outcome.correct).sum()), len(labels))
    return dict(zip(MEASURED, (len(labels), *interval), strict=True))


def in_the_middle(images: Tensor, image_size: int) -> Tensor:
    """Digits [n, h, w] on square canvases with room around them, unless they are as large."""
    nowhere = torch.zeros(len(images), 2, dtype=torch.int64, device=images.device)
    return shift(images, nowhere, image_size)


def transformed(images: Tensor, seed: int) -> Iterator[tuple[str, float, Tensor]]:
    """(transform, amount, transformed images) for every point of the curves."""
    generator = seeded_generator("robustness", "direction", seed)
    drawn = torch.randint(len(DIRECTIONS), (len(images),), generator=generator)
    down, right = DIRECTIONS[drawn].to(images.device).unbind(dim=1)
    for transform, amounts in AMOUNTS.items():
        for amount in amounts:
            if transform == "translation":
                moved = affine(images, translation=(amount * down, amount * right))
            else:
                moved = affine(images, **{transform: amount})
            yield transform, amount, moved


def all_together(images: Tensor, seed: int) -> tuple[str, Tensor]:
    """What it is called and the images: affNIST's transforms, as far as the canvas has room."""
    generator = seeded_generator("robustness", "affnist", seed)
    if images.shape[-1] >= AFFNIST_SIZE:
        return "affnist_like", affnist_like(images, generator)
    few = affnist_like(images, generator, max_translation=SMALL_CANVAS_MOVE)
    return f"affnist_like_{SMALL_CANVAS_MOVE}px", few


def row(transform: str, amount: float | None, found: dict[str, float]) -> dict[str, object]:
    return {"transform": transform, "amount": amount, "unit": UNITS.get(transform, "")} | found


def headline(table: pd.DataFrame) -> dict[str, object]:
    """The combined tests with their intervals, and the errors at the ends of affNIST's ranges."""
    results: dict[str, object] = {"examples": int(table["examples"].iloc[0])}
    for combined in table[table["amount"].isna()].itertuples():
        results[combined.transform] = {name: getattr(combined, name) for name in MEASURED}
    for name, (transform, amounts) in HEADLINES.items():
        chosen = (table["transform"] == transform) & table["amount"].isin(amounts)
        results[name] = float(table.loc[chosen, "error"].mean())
    return results
