"""The capsule network of the paper (Figure 1): convolution, primary capsules, digit capsules,
decoder.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, linalg, nn
from torch.nn import functional

from capsnet.nn.convolution import convolve
from capsnet.nn.decoder import Decoder
from capsnet.nn.layers import DigitCapsules, PrimaryCapsules


class Prediction(NamedTuple):
    """Lengths [b, j], the longer the surer (a baseline gives its scores here); capsules [b, j, d]
    or None.
    """

    lengths: Tensor
    capsules: Tensor | None


class CapsNet(nn.Module):
    """Images float [b, 1, h, w] in [0, 1] -> Prediction. The defaults are the paper's sizes.

    28x28 images give 1,152 primary capsules and 8,215,568 parameters, 36x36 images 3,200 and
    11,361,808. `decoder_sizes=None` leaves the decoder out (Table 1, "no reconstruction"). Raises
    ValueError if the image is too small for the two convolutions.
    """

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int = 10,
        conv_channels: int = 256,
        kernel_size: int = 9,
        primary_types: int = 32,
        primary_dim: int = 8,
        primary_scale: float = 1.0,
        digit_dim: int = 16,
        decoder_sizes: Sequence[int] | None = (512, 1024),
        weight_std: float = 0.1,
        num_iterations: int = 3,
        bias: bool = False,
        leaky: bool = False,
        gradient: str = "all",
    ) -> None:
        super().__init__()
        primary_stride = 2
        grid = (image_size - 2 * kernel_size + 1) // primary_stride + 1
        if grid < 1:
            raise ValueError(
                f"images of {image_size} px are too small for two convolutions of {kernel_size} px"
            )
        convolution = nn.Conv2d(1, conv_channels, kernel_size)
        self.convolution = convolution.to(memory_format=torch.channels_last)  # see `convolve`
        self.primary = PrimaryCapsules(
            in_channels=conv_channels,
            num_types=primary_types,
            pose_dim=primary_dim,
            kernel_size=kernel_size,
            stride=primary_stride,
            scale=primary_scale,
        )
        self.digit = DigitCapsules(
            num_lower=primary_types * grid**2,
            num_upper=num_classes,
            lower_dim=primary_dim,
            upper_dim=digit_dim,
            num_iterations=num_iterations,
            bias=bias,
            leaky=leaky,
            gradient=gradient,
            weight_std=weight_std,
        )
        self.decoder = None
        if decoder_sizes is not None:
            self.decoder = Decoder(
                num_classes=num_classes,
                pose_dim=digit_dim,
                hidden_sizes=decoder_sizes,
                image_size=image_size,
            )

    def forward(self, images: Tensor) -> Prediction:
        capsules = self.digit(self.lower_capsules(images))
        return Prediction(linalg.vector_norm(capsules, dim=-1), capsules)

    def lower_capsules(self, images: Tensor) -> Tensor:
        """The primary capsules [b, i, p], type by type and row by row within a type."""
        layer = self.convolution
        features = convolve(images, layer.weight, layer.bias, stride=1)
        features = functional.relu(features, inplace=True)  # the largest tensor of all: no copy
        return self.primary(features)
