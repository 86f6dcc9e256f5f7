"""The routing kernel of a device against `route_reference`, in value and gradients."""

from itertools import product

import pandas as pd
import torch
from torch import Tensor

from capsnet.nn.routing import route, route_reference, squash

SHAPES = ((128, 1152), (128, 3200), (100, 1152), (1, 3200))  # images, lower capsules
FEW = ((5, 36), (1, 72))
WAYS = tuple(product((1, 3), (False, True), ("all", "last")))  # iterations, leaky, gradient
LIMIT = 1e-4  # of float32 sums over thousands of votes, relative to the largest number


def compare(device: torch.device, shapes: tuple[tuple[int, int], ...] = SHAPES) -> pd.DataFrame:
    """A row for each shape, way and quantity: the largest difference from the reference in double
    precision, relative to the largest number there, and whether a second call gave the same bits.
    """
    rows = []
    for (num_images, num_lower), (iterations, leaky, gradient) in product(shapes, WAYS):
        torch.manual_seed(0)
        lower = squash(torch.randn(num_images, num_lower, 8))
        inputs = lower, 0.1 * torch.randn(num_lower, 10, 8, 16), 0.1 * torch.randn(10, 16)
        wanted_back = torch.randn(num_images, 10, 16)
        settings = dict(num_iterations=iterations, leaky=leaky, gradient=gradient)
        found, again, truth = (
            value_and_gradients(way, inputs, wanted_back, device, dtype, settings)
            for way, dtype in (
                (route, torch.float32),
                (route, torch.float32),
                (route_reference, torch.float64),
            )
        )
        for name in truth:
            difference = (found[name].double() - truth[name]).abs().max()
            rows.append(
                {
                    "images": num_images,
                    "lower_capsules": num_lower,
                    "iterations": iterations,
                    "leaky": leaky,
                    "gradient": gradient,
                    "of": name,
                    "difference": float(difference / truth[name].abs().max()),
                    "same_bits": bool(torch.equal(found[name], again[name])),
                }
            )
    return pd.DataFrame(rows)


def value_and_gradients(
    way, inputs: tuple[Tensor, ...], wanted_back: Tensor, device, dtype, settings: dict
) -> dict[str, Tensor]:
    lower, weight, bias = (part.to(device, dtype).detach().requires_grad_() for part in inputs)
    capsules = way(lower, weight, bias_jd=bias, **settings)
    capsules.backward(wanted_back.to(device, dtype))
    return {
        "capsules": capsules.detach(),
        "gradient of the lower capsules": lower.grad,
        "gradient of the weights": weight.grad,
        "gradient of the bias": bias.grad,
    }
