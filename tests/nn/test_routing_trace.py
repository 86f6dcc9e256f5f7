"""The trace shows every iteration of `route`."""

import pytest
import torch

from capsnet.nn.capsnet import CapsNet
from capsnet.nn.routing import route_reference, trace


def draw(dtype=torch.float64) -> list[torch.Tensor]:
    """Lower capsules [3, 6, 4], weights [6, 5, 4, 2] and bias [5, 2]."""
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 6, 4), (6, 5, 4, 2), (5, 2)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("leaky", [False, True])
def test_capsules_and_couplings_are_those_of_the_reference(biased, leaky):
    """Each iteration ends in the reference's capsules; Eq. 2 and 1 by hand from its couplings."""
    lower, weight, bias = draw()
    options = {"bias_jd": bias if biased else None, "leaky": leaky}
    traced = trace(lower, weight, num_iterations=4, **options)
    for k in range(4):
        expected = route_reference(lower, weight, num_iterations=k + 1, **options)
        torch.testing.assert_close(traced.capsules[k], expected, rtol=1e-9, atol=1e-12)
        s = torch.einsum("bij,bijd->bjd", traced.couplings[k], traced.votes)
        s = s + (bias if biased else 0)
        length = s.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(s * length / (1 + length**2), expected, rtol=1e-9, atol=1e-12)


def test_the_trace_of_a_network_ends_in_its_prediction():
    torch.manual_seed(0)
    sizes = dict(image_size=20, conv_channels=8, kernel_size=5, primary_types=2)
    model = CapsNet(**sizes, init="authors", leaky=True).eval()
    images = torch.rand(2, 1, 20, 20)
    traced = model.digit.trace(model.lower_capsules(images))
    torch.testing.assert_close(traced.capsules[-1], model(images).capsules, rtol=1e-6, atol=1e-6)
