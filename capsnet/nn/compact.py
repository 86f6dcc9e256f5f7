"""Compact networks: the light `Stem` and what follows it, one class each.

`CompactCapsNet` routes by agreement. `CompactAttention` routes by self-attention. `CompactConvNet`
is the control, with one linear layer for squash, votes and routing. None is in the paper.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, linalg, nn

from capsnet.nn.attention import SelfAttentionCapsules
from capsnet.nn.capsnet import Prediction
from capsnet.nn.decoder import Decoder
from capsnet.nn.layers import ClassCapsules
from capsnet.nn.squash import squash
from capsnet.nn.stem import Stem

STEM = {
    "channels": (32, 64, 64, 128),
    "kernels": (5, 3, 3, 3),
    "strides": (2, 1, 2, 1),
    "primary_kernel": 2,
}


class StemNetwork(nn.Module):
    """Images float [b, c, h, w] in [0, 1] -> Prediction: a stem, a class layer and a decoder.

    `stem`: arguments of `Stem` but for those here and `pose_dim`. `options`: of the class layer.
    """

    class_layer: Callable[..., nn.Module]  # from primary capsules to vectors [b, j, d]

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int = 10,
        num_channels: int = 1,
        stem: Mapping[str, object] = STEM,
        primary_dim: int = 8,
        class_dim: int = 16,
        decoder_sizes: Sequence[int] | None = (512, 1024),
        **options: object,
    ) -> None:
        super().__init__()
        sizes = {"image_size": image_size, "num_channels": num_channels, "pose_dim": primary_dim}
        self.stem = Stem(**sizes, **stem)
        self.digit = self.class_layer(
            num_lower=self.stem.num_capsules,
            num_upper=num_classes,
            lower_dim=primary_dim,
            upper_dim=class_dim,
            **options,
        )
        sizes = (num_classes, class_dim, decoder_sizes, image_size, num_channels)
        self.decoder = None if decoder_sizes is None else Decoder(*sizes)

    def forward(self, images: Tensor) -> Prediction:
        capsules = self.digit(self.lower_capsules(images)).float()
        return Prediction(linalg.vector_norm(capsules, dim=-1), capsules)

    def lower_capsules(self, images: Tensor) -> Tensor:
        """Primary capsules [b, i, p], ordered by type, row and column."""
        return squash(self.stem(images))

    @property
    def layers(self) -> list[nn.Conv2d]:
        """The convolutions from the image to the primary capsules."""
        return self.stem.layers


class CompactCapsNet(StemNetwork):
    """Routing by agreement."""

    class_layer = staticmethod(partial(ClassCapsules, weight_std=0.05, num_iterations=3))


class CompactAttention(StemNetwork):
    """Self-attention in the place of routing by agreement."""

    class_layer = SelfAttentionCapsules


class CompactConvNet(StemNetwork):
    """ReLU and one linear layer, with as many weights as the matrices of `CompactCapsNet`."""

    @staticmethod
    def class_layer(
        *, num_lower: int, num_upper: int, lower_dim: int, upper_dim: int
    ) -> nn.Sequential:
        linear = nn.Linear(num_lower * lower_dim, num_upper * upper_dim)
        return nn.Sequential(nn.Flatten(), linear, nn.Unflatten(1, (num_upper, upper_dim)))

    def lower_capsules(self, images: Tensor) -> Tensor:
        """Features [b, i, p], without a squash."""
        return torch.relu(self.stem(images))
