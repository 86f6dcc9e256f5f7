"""Rejection: does the picture show digits at all?

A capsule length only compares digits: noise and letters often get a length near 1. The rejection
score is a product of two shares. The first is the correlation of the picture with its
reconstruction, which is low for noise. The second is the share of all squared lengths that belongs
to the predicted digits, which is low for letters. The threshold is estimated for each network on
its validation examples.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from capsnet.data.batches import Batch
from capsnet.learning.evaluation import decode, predict
from capsnet.metrics import exact_match

REJECTED_SHARE = 0.01  # of the correctly classified validation examples; more of photographs
DEFAULT_THRESHOLD = 0.3  # without a threshold in the checkpoint; six networks had 0.20 to 0.46


def rejection_factors(
    images: Tensor, lengths: Tensor, digits: Tensor, drawn: Tensor
) -> tuple[Tensor, Tensor]:
    """Two factors [b] of the rejection score, at most 1: both are high if images [b, c, h, w] show
    the `digits` [b, k].

    The correlation of image and reconstruction, and the share of the digits in all squared lengths.
    lengths: [b, j] of all capsules. drawn: [b, k, (c,) h, w], the reconstructions of the digits.
    """
    image = images.flatten(1) - images.flatten(1).mean(dim=1, keepdim=True)
    together = drawn.sum(dim=1).clamp(max=1).flatten(1)
    together = together - together.mean(dim=1, keepdim=True)
    likeness = torch.cosine_similarity(image, together, dim=1)  # of deviations: the correlation
    squares = lengths.square()
    return likeness, squares.gather(1, digits).sum(dim=1) / squares.sum(dim=1)


@torch.inference_mode()
def rejection_threshold(
    model: nn.Module, batches: Iterable[Batch], dtype: torch.dtype
) -> float | None:
    """Rejection threshold: the 1 % quantile of the scores of correctly classified examples.

    None for a network without a decoder or without a correct prediction. Leaves the model in
    evaluation mode.
    """
    if model.decoder is None:
        return None
    model.eval()
    found = []
    for batch in batches:
        lengths, capsules = predict(model, batch.images, dtype)
        drawn = decode(model, capsules, batch.labels)
        right = exact_match(lengths, batch.labels)
        factors = rejection_factors(batch.images, lengths.float(), batch.labels, drawn)
        found.append((factors[0] * factors[1])[right])
    right = torch.cat(found) if found else torch.empty(0)
    return right.quantile(REJECTED_SHARE).item() if len(right) else None
