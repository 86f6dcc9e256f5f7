"""The two baseline CNNs of the paper (sections 5 and 6), without capsules.

A prediction takes 1.97 G multiply-adds on MNIST (CapsNet: 0.20 G) and 1.14 G on MultiMNIST (0.55
G). The paper does not give the ReLU after every hidden layer, the dropout probability of 0.5 and
the sigmoid targets of 0 and 1 (the authors' code halves them).
"""

import torch
from torch import Tensor, nn

from capsnet.nn.capsnet import Prediction


class BaselineCNN(nn.Module):
    """Images float [b, c, h, w] -> Prediction(scores [b, j], None).

    `num_digits=1`: the MNIST network for softmax cross-entropy, 35,445,522 parameters at 28x28.
    `num_digits=2`: the MultiMNIST network for sigmoid cross-entropy, 24,563,978 at 36x36.
    """

    decoder = None

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int = 10,
        num_channels: int = 1,
        num_digits: int = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        build = _mnist_layers if num_digits == 1 else _multimnist_layers
        self.layers = nn.Sequential(*build(image_size, num_channels, num_classes, dropout))

    def forward(self, images: Tensor) -> Prediction:
        return Prediction(self.layers(images).float(), None)


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding="same")
    return [convolution.to(memory_format=torch.channels_last), nn.ReLU()]


def _mnist_layers(
    image_size: int, num_channels: int, num_classes: int, dropout: float
) -> list[nn.Module]:
    return [
        *_convolution(num_channels, 256, 5),
        *_convolution(256, 256, 5),
        *_convolution(256, 128, 5),
        nn.Flatten(),
        *[nn.Linear(128 * image_size**2, 328), nn.ReLU()],
        *[nn.Linear(328, 192), nn.ReLU(), nn.Dropout(dropout)],
        nn.Linear(192, num_classes),
    ]


def _multimnist_layers(
    image_size: int, num_channels: int, num_classes: int, dropout: float
) -> list[nn.Module]:
    return [
        *_convolution(num_channels, 512, 9),
        nn.MaxPool2d(2),
        *_convolution(512, 256, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *[nn.Linear(256 * (image_size // 4) ** 2, 1024), nn.ReLU()],
        nn.Linear(1024, num_classes),
    ]
