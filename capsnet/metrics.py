"""Metrics: tensors -> numbers. Errors are in percent.

Exact match: an example with k digits is correct only if its k longest capsules are exactly its k
labels. One correct digit of two does not count. With k = 1 it is the usual accuracy.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

INK = 0.5  # a pixel at least this bright belongs to the object
IMBALANCED = 1.5  # times as many examples of the largest class as of the smallest
OVERLAP_EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the bins of `overlap`


def predict(lengths: Tensor, num_digits: int) -> Tensor:
    """The classes of the `num_digits` longest capsules in ascending order: int64 [b, k]."""
    return lengths.topk(num_digits, dim=1).indices.sort(dim=1).values


def exact_match(lengths: Tensor, labels: Tensor) -> Tensor:
    """Whether the k longest capsules are exactly the labels [b, k]: bool [b]."""
    return (predict(lengths, labels.shape[1]) == labels.sort(dim=1).values).all(dim=1)


def wilson_interval(num_errors: int, num_examples: int) -> tuple[float, float, float]:
    """Error in percent, low and high end of its 95 % interval (Wilson 1927). Raises ValueError for
    no examples.
    """
    if num_examples < 1:
        raise ValueError(f"an error rate needs at least 1 example, got {num_examples}")
    from scipy.stats import binomtest  # takes half a second to import

    low, high = binomtest(num_errors, num_examples).proportion_ci(method="wilson")
    return 100 * num_errors / num_examples, 100 * float(low), 100 * float(high)


def mean_interval(values: Tensor) -> tuple[float, float, float, int]:
    """Mean of the values [n] without NaN, its normal 95 % interval, and how many there are."""
    values = values[~values.isnan()].double()
    mean = values.mean().item()
    error = 1.96 * values.std().item() / len(values) ** 0.5 if len(values) > 1 else 0.0
    return mean, mean - error, mean + error, len(values)


def error_row(correct: Tensor) -> dict[str, float]:
    """Number of examples, error in percent and its Wilson interval of `correct`, bool [n]."""
    error, low, high = wilson_interval(int((~correct).sum()), len(correct))
    return {"examples": len(correct), "error": error, "error_low": low, "error_high": high}


def overlap_bins(overlap: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The name of each bin of OVERLAP_EDGES and whether `overlap` [n] is in it, bool [n]."""
    for start, end in pairwise(OVERLAP_EDGES):
        inside = (overlap >= start) & ((overlap < end) | (end == OVERLAP_EDGES[-1]))
        yield f"{100 * start:.0f} to {100 * end:.0f} %", inside


def confusion(predictions: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Confusion matrix, true digits in rows, of predictions and labels [b, k]: int64 [j, j].

    A digit that is found counts on the diagonal. Missed digits are paired with the wrong
    predictions of their example, both in ascending order.
    """
    truth, guess = one_hot(labels, num_classes), one_hot(predictions, num_classes)
    right = (truth & guess).nonzero()[:, 1]
    missed, wrong = (truth & ~guess).nonzero(), (guess & ~truth).nonzero()  # by example
    assert torch.equal(missed[:, 0], wrong[:, 0]), "as many predictions as labels"
    cells = torch.cat([right * (num_classes + 1), missed[:, 1] * num_classes + wrong[:, 1]])
    return cells.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def balanced_accuracy(predictions: Tensor, labels: Tensor) -> float:
    """Mean over the classes of the share of their objects that is found, in percent."""
    hits, kinds = found(predictions, labels).flatten().double(), labels.flatten()
    counts = kinds.bincount()
    return 100 * (kinds.bincount(hits) / counts)[counts > 0].mean().item()


def imbalance(labels: Tensor, num_classes: int) -> tuple[int, int] | None:
    """The smallest and the largest class of labels [b] or [b, k] if the second has more than
    IMBALANCED times as many examples; of random pairs, also more than chance explains.
    """
    counts = labels.flatten().bincount(minlength=num_classes)
    small, large = int(counts.argmin()), int(counts.argmax())
    low, high = counts[small].item(), counts[large].item()
    chance = 3 * (low + high) ** 0.5 if labels.ndim > 1 and labels.shape[1] > 1 else 0
    return (small, large) if high > max(IMBALANCED * low, low + chance) else None


def brightness(pictures: Tensor) -> Tensor:
    """Pictures of two objects [b, 2, c, h, w], or without the axis c, as grey [b, 2, h, w]: the
    brightest channel.
    """
    return pictures.amax(dim=2) if pictures.ndim == 5 else pictures


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """Multi-hot labels: bool [b, j] from int64 [b, k]."""
    return torch.zeros(len(labels), num_classes, dtype=torch.bool).scatter_(1, labels, True)


def found(predictions: Tensor, labels: Tensor) -> Tensor:
    """Whether each label [b, k] is among the predictions [b, k] of its example: bool [b, k]."""
    return (labels.unsqueeze(2) == predictions.unsqueeze(1)).any(dim=2)


def overlap(sources: Tensor) -> Tensor:
    """Shared ink over the ink of the smaller of two digits: [b] in [0, 1].

    `sources` float [b, 2, h, w]; ink is every pixel of at least `INK`.
    """
    ink = brightness(sources) >= INK
    shared = ink.all(dim=1).sum(dim=(1, 2))
    smaller = ink.sum(dim=(2, 3)).min(dim=1).values
    return shared / smaller.clamp_min(1)


def box_overlap(sources: Tensor) -> Tensor:
    """Shared area of two bounding boxes over the area of the smaller box: [b] in [0, 1].

    The paper does not define the denominator of its "80% overlap" (section 6). `sources` float
    [b, 2, h, w]; a box holds every pixel of at least `INK`.
    """
    ink = brightness(sources) >= INK
    shared = area = 1
    for side in (ink.any(dim=3), ink.any(dim=2)):  # rows [b, 2, h], columns [b, 2, w]
        places = torch.arange(side.shape[2], device=side.device).expand_as(side)
        low = torch.where(side, places, side.shape[2]).amin(dim=2)
        high = torch.where(side, places, -1).amax(dim=2) + 1
        shared = shared * (high.amin(dim=1) - low.amax(dim=1)).clamp_min(0)
        area = area * (high - low).clamp_min(0)
    return shared / area.min(dim=1).values.clamp_min(1)
