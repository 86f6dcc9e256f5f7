"""Compact networks: the light `Stem` and what follows it, one class each.

`CompactCapsNet` routes by agreement. `CompactAttention` routes by self-attention. `CompactConvNet`
is the control, with one linear layer for squash, votes and routing. None is in the paper.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, linalg, nn

from capsnet.nn.capsnet import Prediction
from capsnet.nn.layers import ClassCapsules, Decoder, SelfAttentionCapsules, capsules_of, grid_size
from capsnet.nn.squash import squash

STEM = {
    "channels": (32, 64, 64, 128),
    "kernels": (5, 3, 3, 3),
    "strides": (2, 1, 2, 1),
    "primary_kernel": 2,
}


class Stem(nn.Module):
    """Images float [b, c, h, w] -> primary capsules before the squash, float32 [b, i, p].

    Convolutions without padding, each followed by ReLU and then batch normalization, and a
    depthwise convolution whose output is read as primary capsules: the layout of Efficient-CapsNet
    (Mazzia, Salvetti & Chiaberge 2021). Convolution n has `channels[n]` outputs, a
    kernel of `kernels[n]` pixels and `strides[n]`. The depthwise convolution keeps the number of
    channels, which `pose_dim` divides. Capsules are ordered by type, row and column. `num_capsules`
    is i, `grid` the width of the output. Raises ValueError if a kernel is larger than what it
    convolves, or for sizes that do not match.
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_channels: int = 1,
        channels: Sequence[int],
        kernels: Sequence[int],
        strides: Sequence[int],
        primary_kernel: int,
        primary_stride: int = 1,
        pose_dim: int = 8,
    ) -> None:
        super().__init__()
        if not len(channels) == len(kernels) == len(strides):
            counts = f"{len(channels)} channels, {len(kernels)} kernels, {len(strides)} strides"
            raise ValueError(f"the stem has {counts}: wanted the same number of each")
        if channels[-1] % pose_dim:
            raise ValueError(
                f"the stem ends in {channels[-1]} channels: wanted a multiple of {pose_dim}, the "
                "numbers in a primary capsule"
            )
        self.pose_dim = pose_dim
        inputs = [num_channels, *channels[:-1]]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(*sizes) for sizes in zip(inputs, channels, kernels, strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in channels)
        self.primary = nn.Conv2d(
            channels[-1], channels[-1], primary_kernel, primary_stride, groups=channels[-1]
        )
        self.grid = grid_size(image_size, self.layers)
        self.num_capsules = channels[-1] // pose_dim * self.grid**2
        self.to(memory_format=torch.channels_last)

    @property
    def layers(self) -> list[nn.Conv2d]:
        """All convolutions in order, the depthwise one last."""
        return [*self.convolutions, self.primary]

    def forward(self, images: Tensor) -> Tensor:
        features = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            features = norm(torch.relu_(convolution(features)))
        return capsules_of(self.primary(features).float(), self.pose_dim)

    @torch.no_grad()
    def fold_norms(self) -> None:
        """Fold each normalization into the convolution after it: exact, because none pads."""
        for norm, layer in zip(self.norms, self.layers[1:], strict=True):
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            offset = norm.bias - norm.running_mean * scale
            by_input = (-1, 1, 1, 1) if layer.groups > 1 else (1, -1, 1, 1)
            layer.bias += (layer.weight * offset.view(by_input)).sum(dim=(1, 2, 3))
            layer.weight *= scale.view(by_input)
        self.norms = nn.ModuleList(nn.Identity() for _ in self.norms)


def fold_norms(model: nn.Module) -> nn.Module:
    """A copy of the network without batch normalization, for evaluation."""
    folded = copy.deepcopy(model)
    for module in folded.modules():
        if isinstance(module, Stem):
            module.fold_norms()
    return folded.eval()


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
