"""The control: a CapsNet without squash, votes and routing. Not in the paper.

Two convolutions with ReLU and one linear layer with as many weights as the matrices of the CapsNet
and PyTorch's initialization. Each class is a vector, its length is the score, and the decoder
reconstructs the digit from it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, linalg, nn

from capsnet.nn.capsnet import STRIDES, Prediction, pair
from capsnet.nn.convolution import convolve_relu
from capsnet.nn.layers import Decoder, grid_size


class ConvNet(nn.Module):
    """Images float [b, c, h, w] in [0, 1] -> Prediction with vectors [b, j, d] as capsules.

    11,361,968 parameters on 36x36 images, 160 more than the CapsNet (biases). Lengths may exceed 1.
    Raises ValueError if the image is too small for the two convolutions.
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
    ) -> None:
        super().__init__()
        channels = primary_types * primary_dim
        first_kernel, second_kernel = pair(kernel_size)
        convolutions = [
            nn.Conv2d(num_channels, conv_channels, first_kernel, strides[0]),
            nn.Conv2d(conv_channels, channels, second_kernel, strides[1]),
        ]
        self.convolutions = nn.ModuleList(convolutions).to(memory_format=torch.channels_last)
        num_features = channels * grid_size(image_size, convolutions) ** 2
        self.linear = nn.Linear(num_features, num_classes * class_dim)
        self.vectors = nn.Unflatten(1, (num_classes, class_dim))
        sizes = (num_classes, class_dim, decoder_sizes, image_size, num_channels)
        self.decoder = None if decoder_sizes is None else Decoder(*sizes)

    def forward(self, images: Tensor) -> Prediction:
        features = images
        for layer in self.convolutions:
            features = convolve_relu(features, layer)
        vectors = self.vectors(self.linear(features.flatten(1)).float())
        return Prediction(linalg.vector_norm(vectors, dim=-1), vectors)
