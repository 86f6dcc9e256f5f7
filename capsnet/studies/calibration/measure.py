"""Calibration of the capsule lengths, and counting digits by a threshold on them.

The paper calls the length of a class capsule the probability that the class is present (section 2),
but the margin loss does not enforce it. Reliability follows Guo et al. 2017, "On Calibration of
Modern Neural Networks", section 2. Digits are counted on four kinds of images: empty, the ink of a
digit in shuffled tiles, one digit, two digits.
"""

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import fold, unfold

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.batches import seeded_generator
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.losses import probabilities
from capsnet.nn.registry import NETWORKS
from capsnet.studies.registry import Measured

THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
NUM_BINS = 10
TILE = 4  # pixels, or about so many
COUNTS = ("0", "1", "2", "more")


def reliability_table(predictions: Predictions, *, capsules: bool) -> pd.DataFrame:
    """Reliability of the predicted digits and of all classes: a row for each group and bin.

    Columns group, low and high (edges of the bin), examples, length (mean), there (share of present
    digits, %) with its 95 % interval there_low, there_high. Without `capsules` the scores are
    converted to probabilities. Lengths above 1, which a ConvNet may have, count as 1.
    """
    num_digits, predicted = predictions.labels.shape[1], predictions.predicted
    lengths = predictions.lengths if capsules else probabilities(predictions.lengths, num_digits)
    num_classes = lengths.shape[1]
    lengths, present = lengths.clamp(max=1), metrics.one_hot(predictions.labels, num_classes)
    groups = {
        "predicted digits": reliability(lengths.gather(1, predicted), present.gather(1, predicted)),
        f"all {'ten' if num_classes == 10 else num_classes} digits": reliability(lengths, present),
    }
    return pd.concat(groups, names=["group"]).reset_index("group").reset_index(drop=True)


def reliability(confidences: Tensor, present: Tensor) -> pd.DataFrame:
    """Bins of equal width over `confidences` in [0, 1], each with the share of `present`, bool, in
    percent.
    """
    assert ((confidences >= 0) & (confidences <= 1)).all()
    confidences = confidences.flatten().double()
    index = (confidences * NUM_BINS).long().clamp_(max=NUM_BINS - 1)
    columns = {"bin": index, "length": confidences, "hit": present.flatten()}
    rows = []
    for number, inside in pd.DataFrame(columns).groupby("bin"):
        share = metrics.wilson_interval(int(inside["hit"].sum()), len(inside))
        edges = number / NUM_BINS, (number + 1) / NUM_BINS
        rows.append((*edges, len(inside), inside["length"].mean(), *share))
    names = ["low", "high", "examples", "length", "there", "there_low", "there_high"]
    return pd.DataFrame(rows, columns=names)


def count_table(evaluator: Evaluator, num_examples: int) -> pd.DataFrame:
    """How often the number of capsules above a threshold is the number of digits shown.

    Columns shown, digits (the true number), threshold, examples, right (%), and how often none,
    one, two or more were found (found_0 to found_more).
    """
    one, two = (
        [batch.images for batch in evaluator._replace(num_digits=count).batches(num_examples)]
        for count in (1, 2)
    )
    generator, size = seeded_generator("scramble", evaluator.seed), evaluator.image_size
    tile = min((n for n in range(1, size + 1) if size % n == 0), key=lambda n: abs(n - TILE))
    scrambled = [scramble(images, tile=tile, generator=generator) for images in one]
    shown = {"nothing": (0, [torch.zeros_like(one[0][:1])])}
    shown |= {"a digit in shuffled tiles": (0, scrambled)}
    shown |= {"one digit": (1, one), "two digits": (2, two)}
    rows = []
    for name, (truth, batches) in shown.items():
        predictions = [evaluator.predict(images) for images in batches]
        lengths = torch.cat([prediction.lengths for prediction in predictions]).cpu()
        if predictions[0].capsules is None:
            lengths = probabilities(lengths, evaluator.num_digits)
        for threshold in THRESHOLDS:
            found = (lengths > threshold).sum(dim=1).clamp_(max=len(COUNTS) - 1)
            times = found.bincount(minlength=len(COUNTS)).tolist()
            right = 100 * times[truth] / len(lengths)
            rows.append((name, truth, threshold, len(lengths), right, *times))
    names = ["shown", "digits", "threshold", "examples", "right"]
    return pd.DataFrame(rows, columns=names + [f"found_{count}" for count in COUNTS])


def scramble(images: Tensor, *, tile: int, generator: torch.Generator) -> Tensor:
    """Shuffle the square tiles of each image [b, c, h, w], which they fill."""
    batch, _, height, width = images.shape
    tiles = unfold(images, tile, stride=tile)  # [b, pixels, tiles]
    order = torch.rand(batch, tiles.shape[2], generator=generator).argsort(dim=1)
    order = order.to(images.device).unsqueeze(1).expand_as(tiles)
    return fold(tiles.gather(2, order), (height, width), tile, stride=tile)


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Reliability of the lengths, and the number of digits found by threshold."""
    bins = reliability_table(predictions, capsules=NETWORKS[config.network].gives_lengths)
    shifted = evaluator._replace(max_shift=config.task.training_shift)
    return Measured({"calibration": bins, "counts": count_table(shifted, config.study_examples)})
