"""The decoder reconstructs a digit from its capsule (paper, section 4.1 and Figure 2).

Suffixes: b image, j class, d pose, k digit in the image.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Decoder(nn.Module):
    """Fully connected layers: capsules [b, j, d], labels [b, k] -> images [b, k, h, w], of colour
    [b, k, c, h, w].

    Each of the k digits is decoded from its own capsule; all other capsules are zero.
    """

    def __init__(
        self, num_classes: int, pose_dim: int, hidden_sizes: Sequence[int], image_size: int,
        num_channels: int = 1
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_classes, self.shape = num_classes, (image_size, image_size)
        if num_channels > 1:
            self.shape = (num_channels, *self.shape)
        sizes = [num_classes * pose_dim, *hidden_sizes]
        layers: list[nn.Module] = []
        for size_in, size_out in itertools.pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        layers += [nn.Linear(sizes[-1], math.prod(self.shape)), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, capsules_bjd: Tensor, labels_bk: Tensor) -> Tensor:
        mask_bkj = torch.nn.functional.one_hot(labels_bk, capsules_bjd.shape[1])
        masked_bkjd = mask_bkj.unsqueeze(-1) * capsules_bjd.unsqueeze(1)
        pixels = self.layers(masked_bkjd.flatten(2))
        return pixels.unflatten(-1, self.shape)
