"""Are capsule lengths probabilities? And how many digits does the network see?

The paper calls the length of a digit capsule the probability that the digit is there (section 2);
the margin loss never asks for that. Reliability and its expected error are those of Guo et al.
2017, "On Calibration of Modern Neural Networks", section 2. Confidences are in [0, 1], shares in
percent.
"""

from typing import NamedTuple

import torch
from torch import Tensor

THRESHOLD = 0.5  # a digit is there if its capsule is longer: midway between the loss's margins


def probabilities(scores: Tensor, num_digits: int) -> Tensor:
    """A baseline's scores [b, j] on the scale of lengths, by the function of its loss."""
    return scores.softmax(dim=1) if num_digits == 1 else scores.sigmoid()


class Bins(NamedTuple):
    """Confidences by size, bins without one left out: all of shape [bins]."""

    low: Tensor  # edges
    high: Tensor
    examples: Tensor  # int64
    right: Tensor  # int64, how many of them were right
    confidence: Tensor  # their mean


def reliability(confidences: Tensor, right: Tensor, *, num_bins: int = 10) -> Bins:
    """Sort confidences [n] into bins of equal width and count how many were `right`, bool [n].

    Raises ValueError for a confidence outside of [0, 1]: that is no probability.
    """
    if len(confidences) and not (confidences.min() >= 0 and confidences.max() <= 1):
        found = f"{confidences.min():.3g} to {confidences.max():.3g}"
        raise ValueError(f"confidences are {found}, wanted 0 to 1")
    confidences = confidences.double()
    number = (confidences * num_bins).long().clamp_(max=num_bins - 1)
    examples = number.bincount(minlength=num_bins)
    correct = number.bincount(weights=right.double(), minlength=num_bins).long()
    mean = number.bincount(weights=confidences, minlength=num_bins) / examples
    low = torch.arange(num_bins, dtype=torch.float64) / num_bins
    filled = examples > 0
    return Bins(*(field[filled] for field in (low, low + 1 / num_bins, examples, correct, mean)))


def expected_calibration_error(bins: Bins) -> float:
    """Mean gap between confidence and accuracy over all examples, in percent (Eq. 3 there)."""
    gaps = (bins.right / bins.examples - bins.confidence).abs()
    return 100 * (bins.examples * gaps).sum().item() / bins.examples.sum().item()


def count_digits(lengths: Tensor, threshold: float = THRESHOLD) -> Tensor:
    """How many capsules of [b, j] are longer than the threshold: int64 [b]."""
    return (lengths > threshold).sum(dim=1)


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
