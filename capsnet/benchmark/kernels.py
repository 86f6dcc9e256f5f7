"""The routing kernel of a device against `route_reference`, in value and gradients:
`python -m capsnet.benchmark.kernels --out TABLE`.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from capsnet.device import choose_device
from capsnet.files import replace_file
from capsnet.nn.routing import route, route_reference, squash

SHAPES = ((128, 1152), (128, 3200), (100, 1152), (1, 3200))  # images, lower capsules
FEW = ((5, 36), (1, 72))
WAYS = tuple(product((1, 3), (False, True), ("all", "last")))  # iterations, leaky, gradient
QUANTITIES = 4  # the capsules and the gradients of three inputs
LIMIT = 1e-4  # of float32 sums over thousands of votes, relative to the largest number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="table to write, CSV")
    parser.add_argument("--small", action="store_true", help="few images and capsules")
    arguments = parser.parse_args()
    tables, device = [], choose_device()
    try:
        for shape in FEW if arguments.small else SHAPES:  # each is kept as it comes
            tables.append(compare(device, (shape,)))
            replace_file(arguments.out, pd.concat(tables).to_csv(index=False).encode())
    except (ValueError, OSError) as error:  # a kernel that does not start
        sys.exit(f"kernels: {error}")


def is_whole(table: Path, *, small: bool) -> bool:
    """Whether the file has every shape, way and quantity."""
    wanted = QUANTITIES * len(FEW if small else SHAPES) * len(WAYS)
    return table.exists() and len(pd.read_csv(table)) == wanted


def worst(table: Path) -> float:
    """The largest difference in the file; NaN if one is."""
    return float(pd.read_csv(table)["difference"].max(skipna=False))


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


if __name__ == "__main__":
    main()
