"""The capsule network of the paper (Figure 1)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, linalg, nn

from capsnet.nn.convolution import convolve_relu
from capsnet.nn.layers import ClassCapsules, Decoder, PrimaryCapsules, grid_size, trunc_normal_

STRIDES = (1, 2)  # of the two convolutions (paper, section 4)


class Prediction(NamedTuple):
    """Lengths [b, j] (scores of a baseline) and capsules [b, j, d] (None of a baseline)."""

    lengths: Tensor
    capsules: Tensor | None


def pair(number: int | Sequence[int]) -> tuple[int, int]:
    """Two numbers, or one number twice."""
    return (number, number) if isinstance(number, int) else tuple(number)


class CapsNet(nn.Module):
    """Images float [b, c, h, w] in [0, 1] -> Prediction. The defaults are the paper's sizes.

    28x28 images give 1,152 primary capsules and 8,215,568 parameters, 36x36 images 3,200 and
    11,361,808. `kernel_size` is a number for both convolutions or a pair. `decoder_sizes=None`: no
    decoder (Table 1, "no reconstruction"). `init="authors"`: initial weights of the authors' code
    and its bias of the class capsules (160 parameters). Raises ValueError if the image is too small
    for the two convolutions.
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int = 10,
        num_channels: int = 1,
        conv_channels: int = 256,
        kernel_size: int | Sequence[int] = 9,
        strides: Sequence[int] = STRIDES,
        primary_types: int = 32,
        primary_dim: int = 8,
        class_dim: int = 16,
        decoder_sizes: Sequence[int] | None = (512, 1024),
        weight_std: float = 0.1,
        num_iterations: int = 3,
        init: str = "pytorch",
        leaky: bool = False,
        gradient: str = "all",
    ) -> None:
        super().__init__()
        first_kernel, second_kernel = pair(kernel_size)
        convolution = nn.Conv2d(num_channels, conv_channels, first_kernel, strides[0])
        self.convolution = convolution.to(memory_format=torch.channels_last)  # see `convolve`
        self.primary = PrimaryCapsules(
            in_channels=conv_channels,
            num_types=primary_types,
            pose_dim=primary_dim,
            kernel_size=second_kernel,
            stride=strides[1],
        )
        grid = grid_size(image_size, self.layers)
        self.digit = ClassCapsules(
            num_lower=primary_types * grid**2,
            num_upper=num_classes,
            lower_dim=primary_dim,
            upper_dim=class_dim,
            num_iterations=num_iterations,
            bias=init == "authors",
            leaky=leaky,
            gradient=gradient,
            weight_std=weight_std,
        )
        sizes = (num_classes, class_dim, decoder_sizes, image_size, num_channels)
        self.decoder = None if decoder_sizes is None else Decoder(*sizes)
        if init == "authors":
            self._init_as_authors()

    def _init_as_authors(self) -> None:
        """Weights normal, truncated at two standard deviations; every bias 0.1.

        The authors' primary layer divides its sums by 32 before it adds the bias. Here its initial
        weights are divided by 32.
        """
        layers = [layer for layer in self.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
        for layer in (*layers, self.digit):
            std = 0.05 if layer is self.convolution else 0.1
            trunc_normal_(layer.weight, std=std, bound=2 * std)
            nn.init.constant_(layer.bias, 0.1)
        with torch.no_grad():
            self.primary.convolution.weight /= 32

    @property
    def layers(self) -> list[nn.Conv2d]:
        """The convolutions from the image to the primary capsules."""
        return [self.convolution, self.primary.convolution]

    def forward(self, images: Tensor) -> Prediction:
        capsules = self.digit(self.lower_capsules(images))
        return Prediction(linalg.vector_norm(capsules, dim=-1), capsules)

    def lower_capsules(self, images: Tensor) -> Tensor:
        """Primary capsules [b, i, p], ordered by type, row and column."""
        return self.primary(convolve_relu(images, self.convolution))
