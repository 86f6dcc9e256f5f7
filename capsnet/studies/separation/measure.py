"""How well reconstructions tell overlapping digits apart, beside answers that need no network.

A squared difference alone says little: half of the image, shown twice, is a better answer than a
blurred digit. What a network has told apart shows on the pixels that one digit alone has inked:
there its own reconstruction should be the brighter one. Reconstructed are the true digits, each
from its own capsule, whether or not the network found them.
"""

from collections.abc import Iterator
from math import sqrt

import pandas as pd
import torch
from torch import Tensor

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.archives import NUM_CLASSES
from capsnet.learning.evaluation import Evaluator, Predictions, decode
from capsnet.studies.registry import Measured

COLUMNS = ["measure", "name", "value", "low", "high", "unit", "examples"]
SQUARED, PIXELS, BOXES = "squared_error", "separation_accuracy", "box_overlap"
BY_MEANS = "class_means_accuracy"


def separation_table(
    evaluator: Evaluator, predictions: Predictions, num_examples: int
) -> pd.DataFrame:
    """Rows of COLUMNS: means over the first test examples, with 95 % intervals (normal).
    `predictions` holds the capsules of these examples.

    squared_error: sum of squared pixel differences for each digit, of the network and of trivial
        answers: nothing, the mean picture of the class, and for pairs half of the image;
    separation_accuracy: of the pixels that one digit alone has inked the share (%) on which its own
        reconstruction is the brighter one, of all pairs and by overlap; a coin gets 50;
    class_means_accuracy: the same of the mean pictures of the classes;
    box_overlap: how much of the smaller bounding box the other one covers (%).
    """
    parts = list(examples_of(evaluator, predictions, num_examples))
    sources, labels, images, pictures = (torch.cat(part) for part in zip(*parts, strict=True))
    answers = {"nothing": torch.zeros_like(sources), "mean of the class": means(sources, labels)}
    if sources.shape[1] > 1:
        answers["half of the image"] = (images / 2).expand_as(sources)
    if pictures.numel() > 0:
        answers = {"network": pictures} | answers
    rows = [
        (SQUARED, name, *mean_interval((answer - sources).square().sum(dim=(2, 3)).mean(dim=1)))
        for name, answer in answers.items()
    ]
    units = ["squared px"] * len(rows)
    if sources.shape[1] > 1:
        rows.append((BOXES, "all", *mean_interval(100 * metrics.box_overlap(sources))))
        if pictures.numel() > 0:
            rows += pixels_by_overlap(pictures, sources)
            share = separation_accuracy(answers["mean of the class"], sources)
            rows.append((BY_MEANS, "mean of the class", *mean_interval(share)))
        units += ["%"] * (len(rows) - len(units))
    table = pd.DataFrame(rows, columns=[name for name in COLUMNS if name != "unit"])
    return table.assign(unit=units)[COLUMNS]


def examples_of(
    evaluator: Evaluator, predictions: Predictions, num_examples: int
) -> Iterator[tuple[Tensor, ...]]:
    """Sources, labels, images and, with a decoder, reconstructions of each batch, on the CPU."""
    begin = 0
    for batch in evaluator.batches(num_examples):
        pictures = batch.sources[:0]
        if evaluator.model.decoder is not None:
            capsules = predictions.capsules[begin : begin + len(batch)].to(batch.images.device)
            pictures = decode(evaluator.model, capsules, batch.labels)
        begin += len(batch)
        yield batch.sources.cpu(), batch.labels.cpu(), batch.images.cpu(), pictures.cpu()


def means(sources: Tensor, labels: Tensor) -> Tensor:
    """For each digit [n, k, h, w] the mean of all of its class, wherever they were moved."""
    one_hot = torch.nn.functional.one_hot(labels.flatten(), NUM_CLASSES).float()
    flat = sources.flatten(0, 1).flatten(1)
    mean = one_hot.T @ flat / one_hot.sum(dim=0).clamp_min(1).unsqueeze(1)
    return mean[labels].view_as(sources)


def pixels_by_overlap(pictures: Tensor, sources: Tensor) -> Iterator[tuple]:
    share, overlap = separation_accuracy(pictures, sources), metrics.overlap(sources)
    yield PIXELS, "all", *mean_interval(share)
    for name, inside in metrics.overlap_bins(overlap):
        if inside.any():
            yield PIXELS, name, *mean_interval(share[inside])


def separation_accuracy(pictures: Tensor, sources: Tensor) -> Tensor:
    """Percent of the pixels with one digit's ink alone on which that digit's picture is the
    brighter of the two: [n] from two [n, 2, h, w]; NaN where no pixel is one digit's alone.
    """
    ink = sources >= metrics.INK
    first, second = ink[:, 0] & ~ink[:, 1], ink[:, 1] & ~ink[:, 0]
    brighter = pictures[:, 0] > pictures[:, 1]
    right = (first & brighter) | (second & (pictures[:, 1] > pictures[:, 0]))
    return 100 * right.sum(dim=(1, 2)) / (first | second).sum(dim=(1, 2))


def mean_interval(values: Tensor) -> tuple[float, float, float, int]:
    """Mean with its 95 % interval (normal, over examples) and how many there were without NaN."""
    values = values[~values.isnan()].double()
    mean = values.mean().item()
    error = 1.96 * values.std().item() / sqrt(len(values)) if len(values) > 1 else 0.0
    return mean, mean - error, mean + error, len(values)


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    few = min(config.study_examples, len(predictions.labels))
    return Measured({"separation": separation_table(evaluator, predictions, few)})
