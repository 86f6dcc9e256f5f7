"""Which test examples Figures 3 (one digit) and 5 (two) of the paper show, and their
reconstructions.
"""

from typing import NamedTuple

import numpy as np
import torch

from capsnet.config import RunConfig
from capsnet.data.archives import NUM_CLASSES
from capsnet.data.batches import Batch
from capsnet.learning.evaluation import Evaluator, Predictions, decode
from capsnet.studies.registry import Measured

NUM_SHOWN = 8  # examples of each kind in a figure


class Reconstruction(NamedTuple):
    """One column of Figure 3: images [h, w] and three digits."""

    image: np.ndarray
    reconstruction: np.ndarray
    label: int
    prediction: int
    decoded: int


class OverlaidReconstruction(NamedTuple):
    """One column of Figure 5: the image [h, w], what it is made of and what was decoded [2, h, w].
    Decoded are the "correct" digits, the network's "wrong" ones, or one that is "neither"."""

    image: np.ndarray
    sources: np.ndarray
    reconstructions: np.ndarray
    labels: tuple[int, int]
    decoded: tuple[int, int]
    case: str


def single_reconstructions(evaluator: Evaluator, predictions: Predictions) -> list[Reconstruction]:
    """Figure 3: the first right examples, then failures.

    Failures come twice, as in the paper: from the capsules of the label and of the prediction.
    """
    right, wrong = first_examples(predictions)
    chosen = right[:NUM_SHOWN] + wrong[: NUM_SHOWN // 2]
    batches, shown = made_again(evaluator, chosen), []
    for number in chosen:
        label, prediction = predictions.labels[number].item(), predictions.predicted[number].item()
        for decoded in dict.fromkeys((label, prediction)):
            picture = decode_one(evaluator, batches[number], (decoded,))[0]
            image = batches[number].images[0, 0].cpu().numpy()
            shown.append(Reconstruction(image, picture, label, prediction, decoded))
    return shown


def overlaid_reconstructions(
    evaluator: Evaluator, predictions: Predictions
) -> list[OverlaidReconstruction]:
    """Figure 5: right pairs; wrong ones decoded from the predictions (P); a digit not there (*)."""
    right, wrong = first_examples(predictions)
    cases = [("correct", number) for number in right[:NUM_SHOWN]]
    cases += [("wrong", number) for number in wrong]
    cases += [("neither", number) for number in right[NUM_SHOWN:]]
    batches, shown = made_again(evaluator, right + wrong), []
    for case, number in cases:
        labels = decoded = tuple(predictions.labels[number].tolist())
        if case == "wrong":
            decoded = in_order_of(labels, predictions.predicted[number].tolist())
        elif case == "neither":
            following = [(labels[1] + step) % NUM_CLASSES for step in (1, 2)]
            absent = next(digit for digit in following if digit not in labels)
            decoded = (labels[0], absent)
        batch = batches[number]
        image, sources = batch.images[0, 0].cpu().numpy(), batch.sources[0].cpu().numpy()
        pictures = decode_one(evaluator, batch, decoded)
        shown.append(OverlaidReconstruction(image, sources, pictures, labels, decoded, case))
    return shown


def first_examples(predictions: Predictions) -> tuple[list[int], list[int]]:
    """The numbers of the first examples that were right and that were wrong."""
    right = predictions.correct.nonzero().flatten()[: 2 * NUM_SHOWN].tolist()
    wrong = (~predictions.correct).nonzero().flatten()[:NUM_SHOWN].tolist()
    return right, wrong


def made_again(evaluator: Evaluator, numbers: list[int]) -> dict[int, Batch]:
    """The test examples of these numbers, a batch of one each: a function of the seed alone."""
    wanted, chosen, start = set(numbers), {}, 0
    for batch in evaluator.batches(max(numbers, default=-1) + 1):
        for number in wanted & set(range(start, start + len(batch))):
            chosen[number] = Batch(*(field[number - start, None] for field in batch))
        start += len(batch)
    return chosen


def in_order_of(labels: tuple[int, ...], predictions: list[int]) -> tuple[int, ...]:
    """The predictions with those that are labels in the labels' places, so that colours match."""
    spare = [digit for digit in predictions if digit not in labels]
    return tuple(label if label in predictions else spare.pop(0) for label in labels)


def decode_one(evaluator: Evaluator, batch: Batch, decoded: tuple[int, ...]) -> np.ndarray:
    """Reconstructions [k, h, w] of one example from the capsules of the classes `decoded`."""
    capsules = evaluator.predict(batch.images).capsules
    labels = torch.tensor([decoded], device=capsules.device)
    return decode(evaluator.model, capsules, labels)[0].cpu().numpy()


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Figure 3 of the paper, or Figure 5 for two digits to an image."""
    if evaluator.model.decoder is None:
        return Measured({})
    shown = single_reconstructions if evaluator.num_digits == 1 else overlaid_reconstructions
    return Measured({}, shown(evaluator, predictions))
