"""The two capsule layers: they own weights and call routing.

Legend of the suffixes: b image, i lower capsule, j upper capsule, p lower pose, d upper pose,
c channel, h w place.
"""

import torch
from torch import Tensor, nn

from capsnet.nn.convolution import convolve
from capsnet.nn.routing import Trace, route, squash, trace

PRIMARY_STRIDE = 2  # of the second convolution (paper, section 4)


def grid_size(image_size: int, kernel_size: int) -> int:
    """Places in a row, in pixels of the second convolution's output. Raises ValueError for none."""
    grid = (image_size - 2 * kernel_size + 1) // PRIMARY_STRIDE + 1
    if grid < 1:
        raise ValueError(
            f"images of {image_size} px are too small for two convolutions of {kernel_size} px"
        )
    return grid


class PrimaryCapsules(nn.Module):
    """A convolution whose channels are read as `num_types` capsules of `pose_dim` numbers a place.

    Images [b, c, h, w] -> capsules [b, i, p], i counting type by type and row by row within a type.
    The numbers of one capsule share their type and their place (paper, section 4); the convolution
    has no ReLU, squash is its non-linearity.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_types: int,
        pose_dim: int,
        kernel_size: int,
        stride: int,
    ) -> None:
        super().__init__()
        self.num_types, self.pose_dim = num_types, pose_dim
        convolution = nn.Conv2d(in_channels, num_types * pose_dim, kernel_size, stride)
        self.convolution = convolution.to(memory_format=torch.channels_last)  # see `convolve`

    def forward(self, features_bchw: Tensor) -> Tensor:
        layer = self.convolution
        output = convolve(features_bchw, layer.weight, layer.bias, stride=layer.stride[0]).float()
        # Channels are type by type, so split them first and bring the pose last: a plain view of
        # [b, c, h, w] as [b, i, p] would mix places into a capsule.
        poses = output.unflatten(1, (self.num_types, self.pose_dim))  # [b, type, p, h, w]
        capsules_bip = poses.permute(0, 1, 3, 4, 2).flatten(1, 3)
        return squash(capsules_bip)


class DigitCapsules(nn.Module):
    """One matrix per pair of capsules, and routing by agreement: [b, i, p] -> [b, j, d]."""

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
        self.implementation = "auto"  # not of the network, but of the machine that runs it
        weight_ijpd = torch.empty(num_lower, num_upper, lower_dim, upper_dim)
        self.weight = nn.Parameter(nn.init.trunc_normal_(weight_ijpd, std=weight_std))
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
        """Every iteration of what `forward` does, or of as many as wanted; see
        `capsnet.nn.routing.trace`.
        """
        num_iterations = num_iterations or self.num_iterations
        settings = {"num_iterations": num_iterations, "bias_jd": self.bias, "leaky": self.leaky}
        return trace(lower_bip, self.weight, **settings)


def route_with(model: nn.Module, implementation: str) -> None:
    """Make all capsules of a network route so: "auto" or "reference", see `route`."""
    for layer in model.modules():
        if isinstance(layer, DigitCapsules):
            layer.implementation = implementation
