"""The reconstruction figures of `evaluate`: Figure 3 of the paper (one digit) and 5 (two)."""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from capsnet import figures
from capsnet.data.batches import Batch
from capsnet.data.mnist import NUM_CLASSES
from capsnet.evaluation import Outcome, decode, predict

NUM_SHOWN = 8  # examples of each kind in a figure


def draw_reconstructions(
    model: nn.Module, outcome: Outcome, batches, dtype: torch.dtype, folder: Path, name: str
) -> None:
    """Figure 3 (one digit) or Figure 5 (two): the first right and wrong examples of the test."""
    right = outcome.correct.nonzero().flatten()[: 2 * NUM_SHOWN].tolist()
    wrong = (~outcome.correct).nonzero().flatten()[:NUM_SHOWN].tolist()
    chosen = examples(batches, right + wrong)
    draw = partial(decode_one, model, dtype)
    if outcome.labels.shape[1] == 1:
        right, wrong = right[:NUM_SHOWN], wrong[: NUM_SHOWN // 2]
        draw_figure_3(draw, outcome, chosen, right, wrong, folder, name)
    else:
        draw_figure_5(draw, outcome, chosen, right, wrong, folder, name)


def examples(batches, numbers: list[int]) -> dict[int, Batch]:
    """Make the test examples of these numbers again: they are a function of the seed alone."""
    wanted, chosen, start = set(numbers), {}, 0
    if not numbers:
        return chosen
    for batch in batches(num_examples=max(numbers) + 1):
        for number in wanted & set(range(start, start + len(batch))):
            chosen[number] = Batch(*(field[number - start, None] for field in batch))
        start += len(batch)
    return chosen


def draw_figure_3(draw, outcome, chosen, right, wrong, folder, name) -> None:
    """Failures twice, as in the paper: from the capsules of the label and of the prediction."""
    shown = []
    for number in right + wrong:
        label, prediction = outcome.labels[number].item(), outcome.predictions[number].item()
        for decoded in dict.fromkeys((label, prediction)):
            batch = chosen[number]
            picture = draw(batch, (decoded,))[0]
            image = batch.images[0, 0].cpu().numpy()
            shown.append(figures.Reconstruction(image, picture, label, prediction, decoded))
    figures.reconstructions(
        shown,
        folder / "reconstructions.png",
        title=f"{name}: test digits and their reconstructions",
    )


def draw_figure_5(draw, outcome, chosen, right, wrong, folder, name) -> None:
    """Right pairs; wrong ones decoded from the predictions (P); a digit that is not there (*)."""
    shown = []
    cases = [("correct", number) for number in right[:NUM_SHOWN]]
    cases += [("wrong", number) for number in wrong]
    cases += [("neither", number) for number in right[NUM_SHOWN:]]
    for case, number in cases:
        labels = tuple(outcome.labels[number].tolist())
        decoded = labels
        if case == "wrong":
            decoded = _in_order_of(labels, outcome.predictions[number].tolist())
        elif case == "neither":
            following = [(labels[1] + step) % NUM_CLASSES for step in (1, 2)]
            absent = next(digit for digit in following if digit not in labels)
            decoded = (labels[0], absent)
        batch = chosen[number]
        shown.append(
            figures.OverlaidReconstruction(
                batch.images[0, 0].cpu().numpy(),
                batch.sources[0].cpu().numpy(),
                draw(batch, decoded),
                labels,
                decoded,
                case,
            )
        )
    figures.overlaid_reconstructions(
        shown, folder / "reconstructions.png", title=f"{name}: two digits, told apart"
    )


def _in_order_of(labels: tuple[int, ...], predictions: list[int]) -> tuple[int, ...]:
    """The predictions with those that are labels in the labels' places, so that colours match."""
    spare = [digit for digit in predictions if digit not in labels]
    return tuple(label if label in predictions else spare.pop(0) for label in labels)


def decode_one(
    model: nn.Module, dtype: torch.dtype, batch: Batch, decoded: tuple[int, ...]
) -> np.ndarray:
    """Reconstructions [k, h, w] of one example from the capsules of the classes `decoded`."""
    capsules = predict(model, batch.images, dtype).capsules
    labels = torch.tensor([decoded], device=capsules.device)
    return decode(model, capsules, labels)[0].cpu().numpy()
