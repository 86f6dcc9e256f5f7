"""Robustness of a network for one digit: error against rotation, shear, scale and translation.

Each transform alone, on the same test digits, so that a curve shows where the network gives in; and
all of them together, as in affNIST (paper, section 5.2), on digits of our own and on affNIST's
published files where they are. The network saw none of it in training but shifts by whole pixels.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from capsnet.config import RunConfig
from capsnet.data.affnist import load_affnist
from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import Digits
from capsnet.data.multimnist import shift
from capsnet.data.transforms import AFFNIST_SIZE, affine, affnist_like
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.metrics import error_row
from capsnet.studies.registry import Measured

NUM_TRANSFORMED = 16  # digits in the figure of random transforms
COLUMNS = ["transform", "amount", "unit", "examples", "error", "error_low", "error_high"]
UNITS = {"rotation": "degrees", "shear": "px/px", "scale": "times", "translation": "px"}
AMOUNTS = {  # affNIST: -20 to 20, -0.2 to 0.2, 0.8 to 1.2, and all of the distances
    "rotation": (-60, -45, -30, -20, -15, 0, 15, 20, 30, 45, 60),
    "shear": (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6),
    "scale": (0.5, 0.65, 0.8, 1.0, 1.2, 1.35, 1.5),
    "translation": (0, 1, 2, 3, 4, 6, 8),
}
NEUTRAL = {"rotation": 0, "shear": 0, "scale": 1, "translation": 0}  # the image as it is
DIRECTIONS = torch.tensor([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)])  # (down, right)
SMALL_CANVAS_MOVE = 2  # pixels, as in training: 28x28 leave no room for affNIST's translations


def robustness_table(evaluator: Evaluator, num_examples: int, affnist: Path | None) -> pd.DataFrame:
    """Test the network on the first `num_examples` digits, transformed: rows of COLUMNS.

    Digits are transformed in the middle of the canvas and then placed as the task places them; for
    translation they are moved from the middle of it by whole pixels up, down, left or right, drawn
    for each digit, and for affNIST's transforms they stand where those put them. On a canvas too
    small for affNIST's translations the test is called `affnist_like_2px`: moved by at most 2
    pixels. The network is tested on all images of `affnist` (one .mat file has 10,000) when it
    takes images of their size. Of the tests without an amount, all transforms act together.
    """
    digits, size = evaluator.digits, evaluator.image_size
    images, labels = in_the_middle(digits.images[:num_examples], size), digits.labels[:num_examples]

    def test(moved: Tensor, labels: Tensor = labels, max_shift: int = 0) -> dict[str, float]:
        moved_digits = evaluator._replace(digits=Digits(moved, labels), max_shift=max_shift)
        return error_row(moved_digits.evaluate(len(labels)).correct)

    rows = curves(test, images, seed=evaluator.seed, max_shift=evaluator.max_shift)
    together, moved = all_together(images, evaluator.seed)
    rows.append(row(together, None, test(moved)))
    if affnist is not None and size == AFFNIST_SIZE:
        rows.append(row("affnist", None, test(*load_affnist(affnist).to(images.device))))
    return pd.DataFrame(rows, columns=COLUMNS)


def random_affine(
    evaluator: Evaluator, degrees: float, translate: float
) -> tuple[Tensor, Tensor, Predictions]:
    """The teaching notebook's test: every digit rotated by up to `degrees` and moved by up to
    `translate` of the width, by torchvision's RandomAffine.

    Returns the images before and after, uint8 [n, h, h], and what the network said of the latter.
    """
    from torchvision.transforms import RandomAffine

    transform = RandomAffine(degrees, (translate, translate))
    images = in_the_middle(evaluator.digits.images, evaluator.image_size)
    with torch.random.fork_rng():
        torch.manual_seed(evaluator.seed)  # torchvision draws from the global generator
        moved = torch.stack([transform(image[None])[0] for image in images.cpu()])
    moved = moved.to(images.device)
    transformed = evaluator._replace(digits=Digits(moved, evaluator.digits.labels), max_shift=0)
    return images, moved, transformed.evaluate(len(moved))


def curves(
    test: Callable[..., dict], images: Tensor, *, seed: int, max_shift: int
) -> list[dict[str, object]]:
    """The rows of all points; images as they are, placed in the same way, are tested only once."""
    rows, plain = [], {}
    for transform, amount, moved in transformed(images, seed):
        places = 0 if transform == "translation" else max_shift
        neutral = amount == NEUTRAL[transform]
        found = plain.get(places) if neutral else None
        found = found or test(moved, max_shift=places)
        if neutral:
            plain[places] = found
        rows.append(row(transform, amount, found))
    return rows


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


class Transformed(NamedTuple):
    """Digits [n, h, w] in [0, 1] before and after the teaching notebook's transform."""

    images: np.ndarray
    moved: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Under affine transformations that training did not show; of one digit to an image only."""
    if evaluator.num_digits > 1:
        return Measured({"robustness": pd.DataFrame(columns=COLUMNS)})
    affnist = Path(config.data.affnist) if config.data.affnist else None
    table = robustness_table(evaluator, config.study_examples, affnist)
    degrees, share = config.evaluate.affine_degrees, config.evaluate.affine_translate
    images, moved, answers = random_affine(evaluator, degrees, share)
    table.loc[len(table)] = row("random_affine", None, error_row(answers.correct))
    first = slice(NUM_TRANSFORMED)
    pictures = [part[first].cpu().numpy() / 255 for part in (images, moved)]
    digits = [part[first, 0].numpy() for part in (answers.labels, answers.predicted)]
    return Measured({"robustness": table}, Transformed(*pictures, *digits))
