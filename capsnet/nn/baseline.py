"""The two baseline CNNs of the paper (sections 5 and 6): without capsules, and costlier than the
CapsNet: 1.97 against 0.20 G multiply-adds for an image of MNIST, 1.14 against 0.55 on MultiMNIST.

Not published and chosen here: ReLU after every hidden layer, dropout probability 0.5, targets of 0
and 1 for the sigmoids (the authors' code halves them).
"""

import torch
from torch import Tensor, nn

from capsnet.nn.capsnet import Prediction


class BaselineCNN(nn.Module):
    """Images float [b, 1, h, w] -> Prediction(scores [b, j], None): the higher, the surer.

    `num_digits=1` is the MNIST network (35,445,522 parameters at 28x28), for softmax cross-entropy;
    `num_digits=2` the MultiMNIST one (24,563,978 at 36x36), for sigmoid cross-entropy.
    """

    decoder = None

    def __init__(
        self, *, image_size: int, num_classes: int = 10, num_digits: int = 1, dropout: float = 0.5
    ) -> None:
        super().__init__()
        build = _mnist_layers if num_digits == 1 else _multimnist_layers
        self.layers = nn.Sequential(*build(image_size, num_classes, dropout))

    def forward(self, images: Tensor) -> Prediction:
        return Prediction(self.layers(images).float(), None)


def _convolution(in_channels: int, out_channels: int, kernel_size: int) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding="same")
    return [convolution.to(memory_format=torch.channels_last), nn.ReLU()]


def _mnist_layers(image_size: int, num_classes: int, dropout: float) -> list[nn.Module]:
    return [
        *_convolution(1, 256, 5),
        *_convolution(256, 256, 5),
        *_convolution(256, 128, 5),
        nn.Flatten(),
        *[nn.Linear(128 * image_size**2, 328), nn.ReLU()],
        *[nn.Linear(328, 192), nn.ReLU(), nn.Dropout(dropout)],
        nn.Linear(192, num_classes),
    ]


def _multimnist_layers(image_size: int, num_classes: int, dropout: float) -> list[nn.Module]:
    return [
        *_convolution(1, 512, 9),
        nn.MaxPool2d(2),
        *_convolution(512, 256, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *[nn.Linear(256 * (image_size // 4) ** 2, 1024), nn.ReLU()],
        nn.Linear(1024, num_classes),
    ]
