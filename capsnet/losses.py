"""Margin loss (Eq. 4), reconstruction loss, the baselines' cross-entropies, and their weighted sum.

Losses are sums over classes, pixels and the digits of an image, and means over images, as in the
paper. A mean over the 784 pixels would weigh the reconstruction 784 times too little.

Suffixes: b image, j class, k digit in the image, h w pixel; colour has an axis c before h.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

THRESHOLD = 0.5  # a longer capsule means that its class is present: midway between Eq. 4's margins


class Losses(NamedTuple):
    """Batch means: total = classification + weight * reconstruction."""

    total: Tensor
    classification: Tensor
    reconstruction: Tensor


def margin_loss(
    lengths_bj: Tensor,
    targets_bj: Tensor,
    *,
    positive_margin: float = 0.9,
    negative_margin: float = 0.1,
    down_weight: float = 0.5,
) -> Tensor:
    """Margin loss of capsule lengths [b, j] against multi-hot targets [b, j], a scalar (Eq. 4)."""
    present = targets_bj * (positive_margin - lengths_bj).clamp_min(0) ** 2
    absent = down_weight * (1 - targets_bj) * (lengths_bj - negative_margin).clamp_min(0) ** 2
    return (present + absent).sum(dim=1).mean()  # Eq. 4, summed over the classes


def reconstruction_loss(reconstructions_bkhw: Tensor, sources_bkhw: Tensor) -> Tensor:
    """Sum of squared pixel differences, batch mean, a scalar (paper, section 4.1)."""
    difference = reconstructions_bkhw.float() - sources_bkhw
    return difference.square().sum(dim=tuple(range(1, difference.ndim))).mean()


def softmax_loss(scores_bj: Tensor, targets_bj: Tensor) -> Tensor:
    """Softmax cross-entropy of the MNIST baseline (paper, section 5)."""
    return functional.cross_entropy(scores_bj, targets_bj)


def sigmoid_loss(scores_bj: Tensor, targets_bj: Tensor) -> Tensor:
    """Sigmoid cross-entropy of the MultiMNIST baseline, summed over classes (paper, section 6)."""
    losses_bj = functional.binary_cross_entropy_with_logits(scores_bj, targets_bj, reduction="none")
    return losses_bj.sum(dim=1).mean()


def weighted_losses(
    lengths_bj: Tensor,
    targets_bj: Tensor,
    reconstructions_bkhw: Tensor | None,
    sources_bkhw: Tensor,
    *,
    classification: Callable[[Tensor, Tensor], Tensor],
    reconstruction_weight: float,
) -> Losses:
    """The training loss and its parts; the reconstruction part is zero without reconstructions."""
    classification_part = classification(lengths_bj.float(), targets_bj)
    if reconstructions_bkhw is None:
        zero = torch.zeros_like(classification_part)
        return Losses(classification_part, classification_part, zero)
    reconstruction_part = reconstruction_loss(reconstructions_bkhw, sources_bkhw)
    total = classification_part + reconstruction_weight * reconstruction_part
    return Losses(total, classification_part, reconstruction_part)


def probabilities(scores_bj: Tensor, num_digits: int) -> Tensor:
    """The probabilities [b, j] that a baseline's loss assigns to its scores [b, j]."""
    return scores_bj.softmax(dim=1) if num_digits == 1 else scores_bj.sigmoid()
