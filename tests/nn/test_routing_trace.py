"""The trace shows the routing that `route` does, iteration by iteration."""

import pytest
import torch

from capsnet.nn import routing
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.routing import route, route_reference, trace


def example(dtype=torch.float64, num_images=3):
    """(lower [3, 6, 4], weight [6, 5, 4, 2], bias [5, 2])"""
    generator = torch.Generator().manual_seed(0)
    shapes = (num_images, 6, 4), (6, 5, 4, 2), (5, 2)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for shape in shapes]


CLOSE = {"rtol": 1e-6, "atol": 1e-6}  # sums in another order
OPTIONS = [{}, {"bias": True}, {"leaky": True}]


def arguments(bias, options) -> dict[str, object]:
    return {
        "bias_jd": bias if "bias" in options else None,
        "leaky": options.get("leaky", False),
    }


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("num_iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_ends_in_what_route_returns(num_iterations, options, dtype):
    lower, weight, bias = example(dtype)
    settings = {"num_iterations": num_iterations, **arguments(bias, options)}
    traced = trace(lower, weight, **settings)
    torch.testing.assert_close(traced.capsules[-1], route(lower, weight, **settings), **CLOSE)
    assert len(traced.logits) == len(traced.couplings) == len(traced.capsules) == num_iterations


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_couplings_and_votes_make_the_capsules_of_the_reference(options):
    """Eq. 2 by hand from what the trace gives: sum of coupling times vote, then squash."""
    lower, weight, bias = example()
    given = arguments(bias, options)
    traced = trace(lower, weight, num_iterations=4, **given)
    for k in range(4):
        expected = route_reference(lower, weight, num_iterations=k + 1, **given)
        s = torch.einsum("bij,bijd->bjd", traced.couplings[k], traced.votes)
        s = s + (bias if "bias" in options else 0)
        length = s.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(s * length / (1 + length**2), expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(traced.capsules[k], expected, rtol=1e-9, atol=1e-12)


def test_the_first_couplings_are_even_and_every_one_is_a_share():
    lower, weight, *_ = example()
    traced = trace(lower, weight, num_iterations=3)
    assert traced.logits[0].eq(0).all()
    torch.testing.assert_close(traced.couplings[0], torch.full((3, 6, 5), 0.2).double())
    torch.testing.assert_close(traced.couplings.sum(dim=-1), torch.ones(3, 3, 6).double())


def test_an_image_alone_is_traced_as_in_its_batch():
    lower, weight, *_ = example()
    together = trace(lower, weight, num_iterations=3)
    alone = trace(lower[1:2], weight, num_iterations=3)
    for whole, one in zip(together[1:], alone[1:], strict=True):
        torch.testing.assert_close(whole[:, 1:2], one, rtol=1e-12, atol=1e-12)


def test_a_network_is_traced_to_its_own_prediction():
    torch.manual_seed(0)
    model = CapsNet(image_size=28, conv_channels=8, primary_types=2, init="authors", leaky=True)
    model.eval()
    images = torch.rand(2, 1, 28, 28)
    traced = model.digit.trace(model.lower_capsules(images))
    torch.testing.assert_close(traced.capsules[-1], model(images).capsules, **CLOSE)


def test_half_precision_is_traced_as_it_is_routed():
    lower, weight, *_ = example(torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        traced = trace(lower.to(dtype), weight, num_iterations=3)
        routed = route(lower.to(dtype), weight, num_iterations=3)
        step = torch.finfo(dtype).eps  # sums that differ by 1e-7 may round to neighbours
        torch.testing.assert_close(traced.capsules[-1], routed, rtol=step, atol=0)
        assert traced.votes.dtype == traced.logits.dtype == torch.float32


def test_each_pass_is_computed_once(monkeypatch):
    """r iterations take r couplings."""
    coupled, coupling = [], routing._coupling
    monkeypatch.setattr(routing, "_coupling", lambda *a: coupled.append(1) or coupling(*a))
    lower, weight, *_ = example()
    trace(lower, weight, num_iterations=5)
    assert len(coupled) == 5


def test_wrong_sizes_stop_as_in_route():
    lower, weight, *_ = example()
    with pytest.raises(ValueError, match="at least 1 iteration"):
        trace(lower, weight, num_iterations=0)
