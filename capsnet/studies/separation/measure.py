"""Separation of overlapping digits by their reconstructions, compared with trivial answers.

The squared error alone is misleading: half of the image, used for both digits, has a smaller one
than a blurred digit. Separation accuracy compares the two reconstructions on the pixels covered by
exactly one digit. The true digits are reconstructed, each from its own capsule, whether or not the
network predicts them.
"""

import pandas as pd
import torch
from torch import Tensor

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.learning.evaluation import Evaluator, Predictions, decode
from capsnet.metrics import mean_interval
from capsnet.studies.registry import Measured

COLUMNS = ["measure", "name", "value", "low", "high", "unit", "examples"]


def separation_table(
    evaluator: Evaluator, predictions: Predictions, num_examples: int
) -> pd.DataFrame:
    """Rows of COLUMNS: means over the first test examples with normal 95 % intervals.
    `predictions` holds the capsules of these examples.

    squared_error: squared pixel differences of a digit, of the network and of trivial answers:
        an empty image, the mean image of the class, and for pairs half of the input;
    separation_accuracy: percent of the pixels covered by exactly one digit that are brighter in
        that digit's reconstruction, of all pairs and by overlap; chance is 50;
    class_means_accuracy: the same for the mean images of the classes;
    box_overlap: share of the smaller bounding box that the other one covers, in percent.
    """
    parts, begin = [], 0
    for batch in evaluator.batches(num_examples):
        pictures = batch.sources[:0]
        if evaluator.model.decoder is not None:
            capsules = predictions.capsules[begin : begin + len(batch)].to(batch.images.device)
            pictures = decode(evaluator.model, capsules, batch.labels)
        begin += len(batch)
        found = batch.sources, batch.labels, batch.images, pictures
        parts.append([each.cpu() for each in found])
    sources, labels, images, pictures = (torch.cat(part) for part in zip(*parts, strict=True))
    answers = {"network": pictures} if pictures.numel() > 0 else {}
    answers |= {"nothing": torch.zeros_like(sources), "mean of the class": means(sources, labels)}
    found = []
    if sources.shape[1] > 1:
        halves = images / 2 if sources.ndim == 4 else images[:, None] / 2
        answers["half of the image"] = halves.expand_as(sources)
        found.append(("box_overlap", "all", "%", 100 * metrics.box_overlap(sources)))
        if pictures.numel() > 0:
            share = separation_accuracy(pictures, sources)
            found.append(("separation_accuracy", "all", "%", share))
            for name, inside in metrics.overlap_bins(metrics.overlap(sources)):
                if inside.any():
                    found.append(("separation_accuracy", name, "%", share[inside]))
            share = separation_accuracy(answers["mean of the class"], sources)
            found.append(("class_means_accuracy", "mean of the class", "%", share))
    errors = {name: (answer - sources).square() for name, answer in answers.items()}
    pixels = tuple(range(2, sources.ndim))
    squared = [
        ("squared_error", name, "squared px", error.sum(dim=pixels).mean(dim=1))
        for name, error in errors.items()
    ]
    rows = []
    for measure, name, unit, values in squared + found:
        *interval, count = mean_interval(values)
        rows.append((measure, name, *interval, unit, count))
    return pd.DataFrame(rows, columns=COLUMNS)


def means(sources: Tensor, labels: Tensor) -> Tensor:
    """Mean source of the class of each digit, in the shape of the sources [n, k, (c,) h, w]."""
    one_hot = torch.nn.functional.one_hot(labels.flatten()).float()
    flat = sources.flatten(0, 1).flatten(1)
    mean = one_hot.T @ flat / one_hot.sum(dim=0).clamp_min(1).unsqueeze(1)
    return mean[labels].view_as(sources)


def separation_accuracy(pictures: Tensor, sources: Tensor) -> Tensor:
    """Percent of the pixels covered by exactly one digit that are brighter in that digit's picture:
    [n] from two [n, 2, (c,) h, w]; NaN without such a pixel.
    """
    pictures, sources = metrics.brightness(pictures), metrics.brightness(sources)
    ink = sources >= metrics.INK
    first, second = ink[:, 0] & ~ink[:, 1], ink[:, 1] & ~ink[:, 0]
    right = first & (pictures[:, 0] > pictures[:, 1])
    right |= second & (pictures[:, 1] > pictures[:, 0])
    return 100 * right.sum(dim=(1, 2)) / (first | second).sum(dim=(1, 2))


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    num_examples = min(config.study_examples, len(predictions.labels))
    return Measured({"separation": separation_table(evaluator, predictions, num_examples)})
