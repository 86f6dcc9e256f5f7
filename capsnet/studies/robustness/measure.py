"""Test error of one-digit networks under rotation, shear, scale and translation.

Each transform alone, and all together as in affNIST (paper, section 5.2): on transformed test
digits, and on affNIST's published files if they are given. Training shows none of these transforms
but shifts by whole pixels. Where a task shifts digits, also under a second digit.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.affnist import load_affnist
from capsnet.data.batches import seeded_generator
from capsnet.data.mnist import About, Digits
from capsnet.data.multimnist import shift
from capsnet.data.transforms import AFFNIST_SIZE, affine, affnist_like
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.metrics import error_row
from capsnet.studies.registry import Measured

NUM_TRANSFORMED = 16  # digits in the figure of random transforms
COLUMNS = ["transform", "amount", "unit", "examples", "error", "error_low", "error_high"]
UNITS = {"rotation": "degrees", "shear": "px/px", "scale": "times", "translation": "px"}
AMOUNTS = {  # affNIST: -20 to 20, -0.2 to 0.2, 0.8 to 1.2, and all of the distances
    "rotation": (-90, -75, -60, -45, -30, -20, -15, 0, 15, 20, 30, 45, 60, 75, 90),
    "shear": (-0.6, -0.4, -0.2, 0.0, 0.2, 0.4, 0.6),
    "scale": (0.5, 0.65, 0.8, 1.0, 1.2, 1.35, 1.5),
    "translation": (0, 1, 2, 3, 4, 6, 8),
}
NEUTRAL = {"rotation": 0, "shear": 0, "scale": 1, "translation": 0}  # the unchanged image
DIRECTIONS = torch.tensor([(-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0)])  # (down, right)
SMALL_CANVAS_MOVE = 2  # pixels, as in training: 28x28 leave no room for affNIST's translations


def robustness_table(evaluator: Evaluator, num_examples: int, affnist: Path | None) -> pd.DataFrame:
    """Rows of COLUMNS for the first `num_examples` digits; `amount` is NaN for all together.

    Digits are transformed at the centre of the canvas, then shifted as in the task. Exceptions are
    translation (up, down, left or right from the centre, at random) and affNIST's transforms, which
    include a shift: on a canvas too small for it at most 2 px, called `affnist_like_2px`. The file
    or folder `affnist` is tested as a whole if the network takes images of its size.
    """
    digits, size, seed = evaluator.digits, evaluator.image_size, evaluator.seed
    images, labels = centred(digits.images[:num_examples], size), digits.labels[:num_examples]

    def test(images: Tensor, labels: Tensor = labels, max_shift: int = 0) -> dict[str, float]:
        digits = Digits(images, labels, evaluator.digits.about)
        moved = evaluator._replace(digits=digits, max_shift=max_shift)
        return error_row(moved.evaluate(len(labels)).correct)

    rows, tested = [], {}
    for transform, amount, moved in transformed(images, seed):
        max_shift = 0 if transform == "translation" else evaluator.max_shift
        key = (transform, amount)
        if amount == NEUTRAL[transform]:  # unchanged images are tested once for each shift
            key = ("none", max_shift)
        if key not in tested:
            tested[key] = test(moved, max_shift=max_shift)
        rows.append(row(transform, amount, tested[key]))
    name, most = "affnist_like", {}
    if size < AFFNIST_SIZE:
        name, most = f"{name}_{SMALL_CANVAS_MOVE}px", {"max_translation": SMALL_CANVAS_MOVE}
    generator = seeded_generator("robustness", "affnist", seed)
    rows.append(row(name, None, test(affnist_like(images, generator, **most))))
    ten = evaluator.digits.about == About()
    if affnist is not None and size == AFFNIST_SIZE and ten:
        rows.append(row("affnist", None, test(*load_affnist(affnist).to(images.device)[:2])))
    return pd.DataFrame(rows, columns=COLUMNS)


def random_affine(
    evaluator: Evaluator, degrees: float, translate: float
) -> tuple[Tensor, Tensor, Predictions]:
    """Test under torchvision's RandomAffine: rotation by up to `degrees`, shift by up to
    `translate` of the width, drawn for each digit.

    Returns the images before and after, uint8 [n, (c,) h, h], and the predictions for the latter.
    """
    from torchvision.transforms import RandomAffine

    transform = RandomAffine(degrees, (translate, translate))
    images = centred(evaluator.digits.images, evaluator.image_size)
    with torch.random.fork_rng():
        torch.manual_seed(evaluator.seed)  # torchvision draws from the global generator
        grey = images.ndim == 3
        moved = [transform(image[None])[0] if grey else transform(image) for image in images.cpu()]
    moved = torch.stack(moved).to(images.device)
    digits = evaluator.digits
    digits = Digits(moved, digits.labels, digits.about)
    return images, moved, evaluator._replace(digits=digits, max_shift=0).evaluate(len(moved))


def pair_rows(evaluator: Evaluator) -> Iterator[dict[str, object]]:
    """Test on overlapping pairs, shifted as in the task, one with each test digit as its first:
    the error of pairs, `pair`, and of the digits in them, `pair_digit`.
    """
    found = evaluator._replace(num_digits=2).evaluate(len(evaluator.digits))
    hits = metrics.found(found.predicted, found.labels)
    yield row("pair", None, error_row(found.correct))
    yield row("pair_digit", None, error_row(hits.flatten()))


def centred(images: Tensor, image_size: int) -> Tensor:
    """Images [n, (c,) h, w] at the centre of square canvases."""
    size = (len(images), *(1,) * (images.ndim - 3), 2)
    offsets = torch.zeros(size, dtype=torch.int64, device=images.device)
    return shift(images, offsets, image_size)


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


def row(transform: str, amount: float | None, found: dict[str, float]) -> dict[str, object]:
    return {"transform": transform, "amount": amount, "unit": UNITS.get(transform, "")} | found


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Robustness curves and the random affine test; empty for two digits an image."""
    if evaluator.num_digits > 1:
        return Measured({"robustness": pd.DataFrame(columns=COLUMNS)})
    affnist = Path(config.data.affnist) if config.data.affnist else None
    table = robustness_table(evaluator, config.study_examples, affnist)
    degrees, share = config.evaluate.affine_degrees, config.evaluate.affine_translate
    images, moved, answers = random_affine(evaluator, degrees, share)
    rows = [row("random_affine", None, error_row(answers.correct))]
    rows += pair_rows(evaluator) if evaluator.max_shift > 0 else []
    for one in rows:
        table.loc[len(table)] = one
    first = slice(NUM_TRANSFORMED)
    pictures = [part[first].cpu().numpy() / 255 for part in (images, moved)]
    digits = [part[first, 0].numpy() for part in (answers.labels, answers.predicted)]
    return Measured({"robustness": table}, (*pictures, *digits))
