"""Does the picture show digits at all? What a capsule network can tell beside its lengths.

A length only compares digits: noise and letters often get one near 1. The evidence is a product of
two shares. How like the picture is what the decoder draws of the digits read: noise is not. And how
much of all lengths belongs to these digits: a letter is a little of several. Both depend on how
well the network has learned, so each network has its own limit, found on its validation digits.

Measured on a network with 1.1 % test error: unsure are 4 % of the right answers, 91 % of the wrong
ones, 85 % of printed letters, 87 % of scribbles, and all of noise and digits in shuffled tiles; on
one with 31 % error on pairs 5, 23, 51, 69, 100 and 100 %.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from capsnet.data.batches import Batch
from capsnet.learning.device import autocast
from capsnet.metrics import exact_match

DOUBTED = 0.025  # of the right answers on validation digits lie below the limit
USUAL_LIMIT = 0.3  # for a network without one: those of six trained ones are from 0.20 to 0.46


def evidence(images: Tensor, lengths: Tensor, digits: Tensor, drawn: Tensor) -> Tensor:
    """Evidence [b], at most 1, that images [b, 1, h, w] show the `digits` [b, k] read in them.

    lengths: [b, j] of all capsules. drawn: [b, k, h, w], the reconstructions of the digits.
    """
    image = images.flatten(1) - images.flatten(1).mean(dim=1, keepdim=True)
    together = drawn.sum(dim=1).clamp(max=1).flatten(1)
    together = together - together.mean(dim=1, keepdim=True)
    likeness = torch.cosine_similarity(image, together, dim=1)  # of deviations: the correlation
    squares = lengths.square()
    return likeness * squares.gather(1, digits).sum(dim=1) / squares.sum(dim=1)


@torch.inference_mode()
def evidence_limit(model: nn.Module, batches: Iterable[Batch], dtype: torch.dtype) -> float | None:
    """Below which evidence the network should call itself unsure, from validation batches.

    None if it has no decoder or gets nothing right. Leaves the model in evaluation mode.
    """
    if model.decoder is None:
        return None
    model.eval()
    found = []
    for batch in batches:
        with autocast(batch.images.device, dtype):
            lengths, capsules = model(batch.images)
        drawn = model.decoder(capsules.float(), batch.labels)
        right = exact_match(lengths, batch.labels)
        found.append(evidence(batch.images, lengths.float(), batch.labels, drawn)[right])
    right = torch.cat(found) if found else torch.empty(0)
    return right.quantile(DOUBTED).item() if len(right) else None
