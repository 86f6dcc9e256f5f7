"""Examples and reconstructions of Figures 3 (one digit) and 5 (two digits) of the paper."""

from typing import NamedTuple

import numpy as np
import torch

from capsnet.config import RunConfig
from capsnet.learning.evaluation import Evaluator, Predictions, decode
from capsnet.studies.registry import Measured

NUM_SHOWN = 8  # examples of each kind in a figure


class Reconstruction(NamedTuple):
    """One column of a figure: image [(c,) h, w], sources and reconstructions [k, (c,) h, w] of k
    digits each.

    `decoded` are the classes that are decoded, `predictions` stand in the order of the labels. The
    `case` is "correct", "wrong" for an example with a wrong prediction, or "neither" if one decoded
    class is neither label nor prediction.
    """

    image: np.ndarray
    sources: np.ndarray
    reconstructions: np.ndarray
    labels: tuple[int, ...]
    predictions: tuple[int, ...]
    decoded: tuple[int, ...]
    case: str


def reconstructions(evaluator: Evaluator, predictions: Predictions) -> list[Reconstruction]:
    """Correct and wrong examples, and for two digits correct ones with an absent class.

    As in the paper, a wrong single digit is decoded for the label and for the prediction, a wrong
    pair for the prediction.
    """
    right = predictions.correct.nonzero().flatten()[: 2 * NUM_SHOWN].tolist()
    wrong = (~predictions.correct).nonzero().flatten()[:NUM_SHOWN].tolist()
    labels, predicted = (part.tolist() for part in (predictions.labels, predictions.predicted))
    shown = [("correct", n, labels[n]) for n in right[:NUM_SHOWN]]
    if evaluator.num_digits == 1:
        for n in wrong[: NUM_SHOWN // 2]:
            shown += [("wrong", n, labels[n]), ("wrong", n, predicted[n])]
    else:
        shown += [("wrong", n, align(labels[n], predicted[n])) for n in wrong]
        num_classes = predictions.lengths.shape[1]
        for n in right[NUM_SHOWN:] if num_classes > 2 else ():
            shown.append(("neither", n, with_absent(labels[n], num_classes)))
    batches, found = evaluator.regenerate([number for _, number, _ in shown]), []
    for case, number, decoded in shown:
        batch = batches[number]
        capsules = evaluator.predict(batch.images).capsules
        pictures = decode(evaluator.model, capsules, torch.tensor([decoded]).to(capsules.device))
        image = batch.images[:, 0] if batch.images.shape[1] == 1 else batch.images
        arrays = (part[0].cpu().numpy() for part in (image, batch.sources, pictures))
        read = align(labels[number], predicted[number])
        classes = (tuple(each) for each in (labels[number], read, decoded))
        found.append(Reconstruction(*arrays, *classes, case))
    return found


def align(labels: list[int], predictions: list[int]) -> list[int]:
    """Reorder the predictions: those that are labels stand at the labels' places."""
    spare = [digit for digit in predictions if digit not in labels]
    return [label if label in predictions else spare.pop(0) for label in labels]


def with_absent(labels: list[int], num_classes: int = 10) -> list[int]:
    """The first label, and in place of the second one the next class that is not a label."""
    following = [(labels[1] + step) % num_classes for step in (1, 2)]
    return [labels[0], next(digit for digit in following if digit not in labels)]


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Examples with their reconstructions; None without a decoder."""
    if evaluator.model.decoder is None:
        return Measured({})
    return Measured({}, reconstructions(evaluator, predictions))
