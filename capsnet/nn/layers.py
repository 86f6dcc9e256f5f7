"""The layers of capsules: primary capsules, class capsules and the decoder.

Suffixes: b image, c channel, h w pixel, i lower capsule, j upper capsule, p lower pose, d upper
pose, k digit in the image.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from capsnet.nn.convolution import convolve
from capsnet.nn.routing import Trace, route, squash, trace, without_autocast


def trunc_normal_(weight: Tensor, *, std: float, bound: float = 2.0) -> Tensor:
    """Fill from a normal distribution truncated at -bound and bound. A tensor on the meta device is
    left alone: torch would import its compiler, for seconds.
    """
    return weight if weight.is_meta else nn.init.trunc_normal_(weight, 0, std, -bound, bound)


def grid_size(image_size: int, layers: Iterable[nn.Conv2d]) -> int:
    """Width of the last convolution's output. Raises ValueError if a kernel does not fit."""
    sizes = [(layer.kernel_size[0], layer.stride[0]) for layer in layers]
    size = image_size
    for number, (kernel, stride) in enumerate(sizes, start=1):
        if kernel > size:
            most = next(most for most in range(kernel, 0, -1) if _fits(image_size, sizes, most))
            raise ValueError(
                f"images of {image_size} px are too small: a kernel of {kernel} px meets {size} px "
                f"(convolution {number} of {len(sizes)}); no kernel above {most} px fits"
            )
        size = (size - kernel) // stride + 1
    return size


def _fits(size: int, sizes: Iterable[tuple[int, int]], most: int) -> bool:
    """Whether kernels cut to `most` pixels fit into an image."""
    for kernel, stride in sizes:
        size = (size - min(kernel, most)) // stride + 1
    return size > 0


def receptive_field(layers: Iterable[nn.Conv2d]) -> tuple[int, int]:
    """Width of an output pixel's receptive field and the distance to the next one, in pixels."""
    width, stride = 1, 1
    for layer in layers:
        width += (layer.kernel_size[0] - 1) * stride
        stride *= layer.stride[0]
    return width, stride


def capsules_of(features_bchw: Tensor, pose_dim: int) -> Tensor:
    """Read each `pose_dim` channels of a pixel as a capsule: [b, i, p], by type, row and column."""
    # A plain view of [b, c, h, w] as [b, i, p] would mix pixels into a capsule.
    poses = features_bchw.unflatten(1, (-1, pose_dim))  # [b, type, p, h, w]
    return poses.permute(0, 1, 3, 4, 2).flatten(1, 3)


class PrimaryCapsules(nn.Module):
    """Convolution and squash (paper, section 4): features [b, c, h, w] -> capsules [b, i, p].

    Each output pixel has `num_types` capsules of `pose_dim` numbers. Capsules are ordered by type,
    row and column. The convolution has no ReLU.
    """

    def __init__(
        self, *, in_channels: int, num_types: int, pose_dim: int, kernel_size: int, stride: int
    ) -> None:
        super().__init__()
        self.pose_dim = pose_dim
        convolution = nn.Conv2d(in_channels, num_types * pose_dim, kernel_size, stride)
        self.convolution = convolution.to(memory_format=torch.channels_last)  # see `convolve`

    def forward(self, features_bchw: Tensor) -> Tensor:
        layer = self.convolution
        output = convolve(features_bchw, layer.weight, layer.bias, stride=layer.stride[0]).float()
        return squash(capsules_of(output, self.pose_dim))


class ClassCapsules(nn.Module):
    """Routing by agreement with one matrix per pair of capsules: [b, i, p] -> [b, j, d]."""

    def __init__(
        self,
        *,
        num_lower: int,
        num_upper: int,
        lower_dim: int,
        upper_dim: int,
        num_iterations: int,
        bias: bool = False,
        leaky: bool = False,
        gradient: str = "all",
        weight_std: float = 0.1,
    ) -> None:
        super().__init__()
        self.num_iterations, self.leaky, self.gradient = num_iterations, leaky, gradient
        self.implementation = "auto"  # see `route`
        weight_ijpd = torch.empty(num_lower, num_upper, lower_dim, upper_dim)
        self.weight = nn.Parameter(trunc_normal_(weight_ijpd, std=weight_std))
        self.bias = nn.Parameter(torch.full((num_upper, upper_dim), 0.1)) if bias else None

    def forward(self, lower_bip: Tensor) -> Tensor:
        settings = {"bias_jd": self.bias, "leaky": self.leaky, "gradient": self.gradient}
        settings |= {"num_iterations": self.num_iterations, "implementation": self.implementation}
        return route(lower_bip, self.weight, **settings)

    def trace(self, lower_bip: Tensor, num_iterations: int | None = None) -> Trace:
        """Trace `num_iterations`, by default those of `forward`; see `capsnet.nn.routing.trace`."""
        num_iterations = num_iterations or self.num_iterations
        settings = {"num_iterations": num_iterations, "bias_jd": self.bias, "leaky": self.leaky}
        return trace(lower_bip, self.weight, **settings)


def self_attention(
    lower_bip: Tensor,
    weight_ijpd: Tensor,
    prior_ij: Tensor,
    *,
    squash: Callable[[Tensor], Tensor] = squash,
) -> Tensor:
    """Self-attention routing (Mazzia, Salvetti & Chiaberge 2021, Efficient-CapsNet): lower capsules
    [b, i, p] -> upper capsules [b, j, d], in float32, in one pass.

    A vote's logit is its product with the sum of all votes for the same class, where routing by
    agreement takes the product with the class capsule.
    """
    with without_autocast(lower_bip.device.type):
        votes_bijd = torch.einsum("bip,ijpd->bijd", lower_bip.float(), weight_ijpd)
        # The row sums of the products of all votes for a class, without the [i, i] matrix.
        logits_bij = torch.einsum("bijd,bjd->bij", votes_bijd, votes_bijd.sum(dim=1))
        coupling_bij = (logits_bij / votes_bijd.shape[-1] ** 0.5).softmax(dim=-1) + prior_ij
        return squash(torch.einsum("bij,bijd->bjd", coupling_bij, votes_bijd))


class SelfAttentionCapsules(nn.Module):
    """Self-attention routing with one matrix and one prior per pair of capsules."""

    def __init__(
        self,
        *,
        num_lower: int,
        num_upper: int,
        lower_dim: int,
        upper_dim: int,
        squash: Callable[[Tensor], Tensor] = squash,
    ) -> None:
        super().__init__()
        self.squash = squash
        weight_ijpd = torch.empty(num_lower, num_upper, lower_dim, upper_dim)
        self.weight = nn.Parameter(trunc_normal_(weight_ijpd, std=0.05))
        self.prior = nn.Parameter(torch.zeros(num_lower, num_upper))

    def forward(self, lower_bip: Tensor) -> Tensor:
        return self_attention(lower_bip, self.weight, self.prior, squash=self.squash)


class Decoder(nn.Module):
    """Fully connected layers (paper, section 4.1): capsules [b, j, d], labels [b, k] -> images
    [b, k, h, w], of colour [b, k, c, h, w].

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
        return self.layers(masked_bkjd.flatten(2)).unflatten(-1, self.shape)


def route_with(model: nn.Module, implementation: str) -> None:
    """Set the `implementation` of `route` in all layers of a network."""
    for layer in model.modules():
        if isinstance(layer, ClassCapsules):
            layer.implementation = implementation
