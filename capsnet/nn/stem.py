"""A light convolutional stem with batch normalization, the front of the compact networks.

Convolutions without padding, each followed by ReLU and then batch normalization, and a depthwise
convolution whose output is read as primary capsules: the layout of Efficient-CapsNet (Mazzia,
Salvetti & Chiaberge 2021).
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from capsnet.nn.layers import capsules_of, grid_size


class Stem(nn.Module):
    """Images float [b, c, h, w] -> primary capsules before the squash, float32 [b, i, p].

    Convolution n has `channels[n]` outputs, a kernel of `kernels[n]` pixels and `strides[n]`. The
    depthwise convolution keeps the number of channels, which `pose_dim` divides. Capsules are
    ordered by type, row and column. `num_capsules` is i, `grid` the width of the output. Raises
    ValueError if a kernel is larger than what it convolves, or for sizes that do not match.
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
