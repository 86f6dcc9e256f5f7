"""The routing kernel on a CUDA device against `route_reference` in double precision."""

import pytest
import torch

from capsnet.nn.routing import route, route_reference, squash
from tests.routing import value_and_gradients

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize(("num_images", "num_lower"), [(128, 3200), (5, 37)])
@pytest.mark.parametrize("gradient", ["all", "last"])
def test_value_and_gradients(num_images, num_lower, gradient):
    """Three iterations; float32 sums over thousands of votes: 1e-4 of the largest magnitude."""
    torch.manual_seed(0)
    tensors = squash(torch.randn(num_images, num_lower, 8)), torch.randn(num_lower, 10, 8, 16) / 10
    tensors += torch.randn(10, 16) / 10, torch.randn(num_images, 10, 16)
    double, single = ([t.to("cuda", d) for t in tensors] for d in (torch.double, torch.float))
    options = dict(num_iterations=3, gradient=gradient)
    found, again = (value_and_gradients(route, *single, **options) for _ in range(2))
    truth = value_and_gradients(route_reference, *double, **options)
    for name, one, other, wanted in zip(("value", *"lwb"), found, again, truth, strict=True):
        error = (one.double() - wanted).abs().max() / wanted.abs().max()
        assert error < 1e-4, f"{name}: {error:.1e}"
        assert torch.equal(one, other), f"{name}: a second call gives other bits"
