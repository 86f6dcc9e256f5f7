"""The layers of capsules: primary capsules and class capsules.

Suffixes: b image, c channel, h w pixel, i lower capsule, j upper capsule, p lower pose, d upper
pose.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from capsnet.nn.convolution import convolve
from capsnet.nn.routing import Trace, route, squash, trace


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
        return route(
            lower_bip,
            self.weight,
            num_iterations=self.num_iterations,
            bias_jd=self.bias,
            leaky=self.leaky,
            gradient=self.gradient,
            implementation=self.implementation,
        )

    def trace(self, lower_bip: Tensor, num_iterations: int | None = None) -> Trace:
        """Trace `num_iterations`, by default those of `forward`; see `capsnet.nn.routing.trace`."""
        num_iterations = num_iterations or self.num_iterations
        settings = {"num_iterations": num_iterations, "bias_jd": self.bias, "leaky": self.leaky}
        return trace(lower_bip, self.weight, **settings)


def route_with(model: nn.Module, implementation: str) -> None:
    """Set the `implementation` of `route` in all layers of a network."""
    for layer in model.modules():
        if isinstance(layer, ClassCapsules):
            layer.implementation = implementation
