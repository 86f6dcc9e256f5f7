"""Self-attention routing (Mazzia, Salvetti & Chiaberge 2021, Efficient-CapsNet): one pass.

A vote's logit is its product with the sum of all votes for the same class, where routing by
agreement takes the product with the class capsule. Suffixes as in `capsnet.nn.routing`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from capsnet.nn.layers import trunc_normal_
from capsnet.nn.routing import without_autocast
from capsnet.nn.squash import squash


def self_attention(
    lower_bip: Tensor,
    weight_ijpd: Tensor,
    prior_ij: Tensor,
    *,
    squash: Callable[[Tensor], Tensor] = squash,
) -> Tensor:
    """Lower capsules [b, i, p] -> upper capsules [b, j, d], in float32."""
    with without_autocast(lower_bip.device.type):
        votes_bijd = torch.einsum("bip,ijpd->bijd", lower_bip.float(), weight_ijpd)
        # The row sums of the products of all votes for a class, without the [i, i] matrix.
        logits_bij = torch.einsum("bijd,bjd->bij", votes_bijd, votes_bijd.sum(dim=1))
        coupling_bij = (logits_bij / votes_bijd.shape[-1] ** 0.5).softmax(dim=-1) + prior_ij
        return squash(torch.einsum("bij,bijd->bjd", coupling_bij, votes_bijd))


class SelfAttentionCapsules(nn.Module):
    """Self-attention routing with one matrix and one prior per pair of capsules."""

    def __init__(
        self,
        *,
        num_lower: int,
        num_upper: int,
        lower_dim: int,
        upper_dim: int,
        weight_std: float = 0.05,
        squash: Callable[[Tensor], Tensor] = squash,
    ) -> None:
        super().__init__()
        self.squash = squash
        weight_ijpd = torch.empty(num_lower, num_upper, lower_dim, upper_dim)
        self.weight = nn.Parameter(trunc_normal_(weight_ijpd, std=weight_std))
        self.prior = nn.Parameter(torch.zeros(num_lower, num_upper))

    def forward(self, lower_bip: Tensor) -> Tensor:
        return self_attention(lower_bip, self.weight, self.prior, squash=self.squash)
