"""Efficient-CapsNet as published (Mazzia, Salvetti & Chiaberge 2021).

Without the decoder 161,824 parameters on 28x28 images and 154,656 on 36x36. Other differences from
`CompactAttention`: the squash of its paper, and initial weights after He et al. Batch
normalization has PyTorch's momentum and epsilon. The authors' score on MultiMNIST counts an image
with one of two digits right as half right; this package counts it as wrong.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from capsnet.nn.compact import StemNetwork
from capsnet.nn.layers import SelfAttentionCapsules, trunc_normal_
from capsnet.nn.squash import exponential_squash

CHANNELS, KERNELS, POSE_DIM = (32, 64, 64, 128), (5, 3, 3, 3), 8
SMALL = 32  # pixels: the third convolution of larger images has stride 2


class EfficientCapsNet(StemNetwork):
    """Images float [b, c, h, w] in [0, 1] -> Prediction.

    The last convolution leaves one position: its kernel is the largest odd one that fits. Raises
    ValueError if the image is too small.
    """

    class_layer = SelfAttentionCapsules

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int = 10,
        num_channels: int = 1,
        class_dim: int = 16,
        decoder_sizes: Sequence[int] | None = (512, 1024),
    ) -> None:
        strides = (1, 1, 1, 2) if image_size < SMALL else (1, 1, 2, 2)
        stem = dict(channels=CHANNELS, kernels=KERNELS, strides=strides, primary_stride=2)
        grid = image_size  # before the last convolution
        for kernel, stride in zip(KERNELS, strides, strict=True):
            grid = (grid - kernel) // stride + 1
        stem["primary_kernel"] = max(1, grid - (grid + 1) % 2)
        super().__init__(
            image_size=image_size,
            num_classes=num_classes,
            num_channels=num_channels,
            stem=stem,
            primary_dim=POSE_DIM,
            class_dim=class_dim,
            decoder_sizes=decoder_sizes,
            squash=exponential_squash,
        )
        # The weights of the authors' code but for the truncation of the normal distributions.
        for layer in self.stem.convolutions:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.stem.primary.weight)
        nn.init.zeros_(self.stem.primary.bias)
        # Keras takes all but the last two dimensions of [j, i, p, d] for a receptive field.
        num_lower, num_upper, lower_dim, _ = self.digit.weight.shape
        std = (2 / (num_lower * num_upper * lower_dim)) ** 0.5
        trunc_normal_(self.digit.weight, std=std)

    def lower_capsules(self, images: Tensor) -> Tensor:
        return exponential_squash(self.stem(images))
