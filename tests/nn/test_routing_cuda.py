"""The routing kernel on a CUDA device against `route_reference` in double precision."""

import pytest
import torch

from capsnet.nn.routing import route, route_reference, squash

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


@pytest.mark.parametrize(("num_images", "num_lower"), [(128, 3200), (5, 37)])
@pytest.mark.parametrize("gradient", ["all", "last"])
def test_value_and_gradients(num_images, num_lower, gradient):
    """Three iterations; float32 sums over thousands of votes: 1e-4 of the largest magnitude."""
    torch.manual_seed(0)
    lower = squash(torch.randn(num_images, num_lower, 8))
    weight, bias = 0.1 * torch.randn(num_lower, 10, 8, 16), 0.1 * torch.randn(10, 16)
    upper_grad = torch.randn(num_images, 10, 16)

    def value_and_gradients(function, dtype):
        inputs = [
            tensor.to("cuda", dtype).detach().requires_grad_() for tensor in (lower, weight, bias)
        ]
        capsules = function(*inputs[:2], num_iterations=3, bias_jd=inputs[2], gradient=gradient)
        return capsules, *torch.autograd.grad(capsules, inputs, upper_grad.to("cuda", dtype))

    found = value_and_gradients(route, torch.float32)
    again = value_and_gradients(route, torch.float32)
    truth = value_and_gradients(route_reference, torch.float64)
    for name, one, other, wanted in zip(("value", *"lwb"), found, again, truth, strict=True):
        error = (one.double() - wanted).abs().max() / wanted.abs().max()
        assert error < 1e-4, f"{name}: {error:.1e}"
        assert torch.equal(one, other), f"{name}: a second call gives other bits"
