"""Are capsule lengths probabilities? And how many digits does the network see?

The paper calls the length of a class capsule the probability that the digit is there (section 2);
the margin loss never asks for that. Reliability and its expected error are those of Guo et al.
2017, "On Calibration of Modern Neural Networks", section 2. Digits are counted by one threshold,
chosen before any result, on the canvas of the task: nothing, the ink of a digit in shuffled tiles,
one digit, two digits.
"""

import pandas as pd
import torch
from torch import Tensor

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.archives import NUM_CLASSES
from capsnet.data.batches import seeded_generator
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.losses import probabilities
from capsnet.nn.registry import NETWORKS
from capsnet.studies.registry import Measured

THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
NUM_BINS = 10
TILE = 4  # pixels; divides every canvas
COUNTS = ("0", "1", "2", "more")


def reliability_table(predictions: Predictions, *, capsules: bool) -> pd.DataFrame:
    """Lengths in bins against how often the digit was there, of the predicted digits and of all.

    Columns group, low and high (edges of the bin), examples, length (their mean), there (%) with
    its interval there_low, there_high. Without `capsules` the scores become probabilities first; a
    length above 1, as a ConvNet's may be, counts as 1.
    """
    num_digits, predicted = predictions.labels.shape[1], predictions.predicted
    lengths = predictions.lengths if capsules else probabilities(predictions.lengths, num_digits)
    lengths = lengths.clamp(max=1)
    there = metrics.one_hot(predictions.labels, NUM_CLASSES)
    groups = {
        "predicted digits": reliability(lengths.gather(1, predicted), there.gather(1, predicted)),
        "all ten digits": reliability(lengths, there),
    }
    table = pd.concat(groups, names=["group"]).reset_index(level="group")
    return table.reset_index(drop=True)


def reliability(confidences: Tensor, there: Tensor) -> pd.DataFrame:
    """Confidences in bins of equal width, each bin with the share of `there`, bool, in percent.

    Raises ValueError for a confidence outside of [0, 1]: that is no probability.
    """
    if confidences.numel() and not (confidences.min() >= 0 and confidences.max() <= 1):
        found = f"{confidences.min():.3g} to {confidences.max():.3g}"
        raise ValueError(f"confidences are {found}, wanted 0 to 1")
    confidences = confidences.flatten().double()
    bins = (confidences * NUM_BINS).long().clamp_(max=NUM_BINS - 1)
    pairs = {"bin": bins, "length": confidences, "there": there.flatten()}
    rows = []
    frame = pd.DataFrame({name: values.numpy() for name, values in pairs.items()})
    for number, inside in frame.groupby("bin"):
        share, low, high = metrics.wilson_interval(int(inside["there"].sum()), len(inside))
        edges = {"low": number / NUM_BINS, "high": (number + 1) / NUM_BINS}
        found = {"there": share, "there_low": low, "there_high": high}
        rows.append({**edges, "examples": len(inside), "length": inside["length"].mean(), **found})
    return pd.DataFrame(rows)


def expected_calibration_error(table: pd.DataFrame, group: str = "predicted digits") -> float:
    """Mean gap between lengths and shares of one group of the table, in percent (Eq. 3 there)."""
    bins = table[table["group"] == group]
    gaps = (bins["there"] - 100 * bins["length"]).abs()
    return float((gaps * bins["examples"]).sum() / bins["examples"].sum())


def count_table(evaluator: Evaluator, num_examples: int) -> pd.DataFrame:
    """How often the network sees as many digits as there are, by threshold.

    Columns shown, digits (how many there are), threshold, examples, right (%), and how often it
    found none, one, two or more (found_0 to found_more).
    """
    one, two = (
        [batch.images for batch in evaluator._replace(num_digits=count).batches(num_examples)]
        for count in (1, 2)
    )
    generator = seeded_generator("scramble", evaluator.seed)
    shuffled = [scramble(images, tile=TILE, generator=generator) for images in one]
    shown = {
        "nothing": (0, [torch.zeros_like(one[0][:1])]),
        "a digit in shuffled tiles": (0, shuffled),
        "one digit": (1, one),
        "two digits": (2, two),
    }
    rows = []
    for name, (truth, batches) in shown.items():
        predictions = [evaluator.predict(images) for images in batches]
        lengths = torch.cat([prediction.lengths for prediction in predictions]).cpu()
        if predictions[0].capsules is None:
            lengths = probabilities(lengths, evaluator.num_digits)
        for threshold in THRESHOLDS:
            rows.append({"shown": name, "digits": truth, **counted(lengths, threshold, truth)})
    return pd.DataFrame(rows)


def counted(lengths: Tensor, threshold: float, truth: int) -> dict[str, object]:
    found = (lengths > threshold).sum(dim=1).clamp_(max=len(COUNTS) - 1)
    times = found.bincount(minlength=len(COUNTS)).tolist()
    counts = {f"found_{name}": count for name, count in zip(COUNTS, times, strict=True)}
    right = 100 * counts[f"found_{truth}"] / len(lengths)
    return {"threshold": threshold, "examples": len(lengths), "right": right, **counts}


def scramble(images: Tensor, *, tile: int, generator: torch.Generator) -> Tensor:
    """Cut each image [b, 1, h, w] into square tiles and shuffle them: ink, but no digit.

    Raises ValueError if the tiles do not fill the image.
    """
    batch, _, height, width = images.shape
    if height % tile or width % tile:
        raise ValueError(f"tiles of {tile} px do not fill images of {height} x {width} px")
    tiles = torch.nn.functional.unfold(images, tile, stride=tile)  # [b, pixels, tiles]
    order = torch.rand(batch, tiles.shape[2], generator=generator).argsort(dim=1)
    order = order.to(images.device).unsqueeze(1).expand_as(tiles)
    return torch.nn.functional.fold(tiles.gather(2, order), (height, width), tile, stride=tile)


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Are lengths probabilities, and how many digits are seen?"""
    bins = reliability_table(predictions, capsules=NETWORKS[config.network].gives_lengths)
    shifted = evaluator._replace(max_shift=config.task.training_shift)
    return Measured({"calibration": bins, "counts": count_table(shifted, config.study_examples)})
