"""Squash and routing: golden numbers, the known mistakes, and `route` against `route_reference`."""

import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from capsnet.nn import routing
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.kernels import routing_cpu
from capsnet.nn.kernels.routing_cpu import RouteOnCPU
from capsnet.nn.layers import route_with
from capsnet.nn.routing import route, route_reference, squash

BOTH = pytest.mark.parametrize("routing", [route_reference, route], ids=["reference", "route"])
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the largest magnitude of a tensor


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw(num_images=3, num_lower=6, num_upper=4, lower_dim=5, upper_dim=7, dtype=torch.float64):
    lower_bip = torch.randn(num_images, num_lower, lower_dim, dtype=dtype)
    weight_ijpd = torch.randn(num_lower, num_upper, lower_dim, upper_dim, dtype=dtype)
    return lower_bip, weight_ijpd * 0.25


def assert_near(found, wanted):
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    error = (found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30)
    assert error <= TOLERANCE[wanted.dtype], f"relative error {error:.1e}"


# ------------------------------------------------ squash (Eq. 1)


def test_squash_of_3_4_has_length_25_26():
    """|s| = 5, so |v| = 25 / (1 + 25), along s / 5 = (0.6, 0.8)."""
    found = squash(torch.tensor([3.0, 4.0]))
    assert_close(found, torch.tensor([0.6, 0.8]) * 25 / 26)


def test_squash_works_along_the_given_dimension():
    s = torch.randn(2, 3, 4)
    assert_close(squash(s, dim=1), squash(s.transpose(1, 2)).transpose(1, 2))


def test_squash_at_zero_is_zero_with_a_finite_gradient():
    """v is about |s| s near zero, so value and gradient are zero there."""
    s = torch.zeros(2, 3, requires_grad=True)
    found = squash(s)
    found.sum().backward()
    assert_close(found.detach(), torch.zeros(2, 3))
    assert_close(s.grad, torch.zeros(2, 3))


# ------------------------------------------------ golden numbers of routing (Procedure 1)


@BOTH
def test_one_pass_has_uniform_couplings(routing):
    """Softmax of zero logits: c = 1/J, so v_j = squash(sum of the votes for j / J)."""
    lower, weight = draw(num_upper=4)
    votes = torch.einsum("bip,ijpd->bijd", lower, weight)
    assert_near(routing(lower, weight, num_iterations=1), squash(votes.sum(1) / 4))


@BOTH
def test_leaky_adds_one_place_to_go(routing):
    """One more logit, also zero: c = 1/(J+1)."""
    lower, weight = draw(num_upper=4)
    votes = torch.einsum("bip,ijpd->bijd", lower, weight)
    assert_near(routing(lower, weight, num_iterations=1, leaky=True), squash(votes.sum(1) / 5))


@BOTH
def test_two_passes_by_hand(routing):
    """One lower capsule of pose 1, two upper ones with votes 2 and 0 (1-D poses, so |s| is s).

    Pass 1: c = (1/2, 1/2), s = (1, 0), v = (1/2, 0). Agreement: (2 * 1/2, 0) = (1, 0).
    Pass 2: c_1 = e/(e+1), s_1 = 2e/(e+1) = 1.4621171572600098, v_1 = s_1^2/(1+s_1^2) = 0.68.
    A third pass gives c_1 = 1/(1+exp(-2*(0.5+0.68))), so v_1 = 0.77: the number of passes shows.
    """
    lower, weight = torch.ones(1, 1, 1).double(), torch.tensor([2.0, 0.0]).double().view(1, 2, 1, 1)
    s = 1.4621171572600098
    wanted = torch.tensor([[[s * s / (1 + s * s)], [0.0]]], dtype=torch.float64)
    assert_near(routing(lower, weight, num_iterations=2), wanted)
    assert routing(lower, weight, num_iterations=3)[0, 0, 0] > 0.76


@BOTH
def test_bias_is_added_in_each_pass_before_squash(routing):
    """Votes 0: s = bias in every pass, so v = squash(bias)."""
    lower, weight = torch.zeros(2, 3, 4), torch.ones(3, 2, 4, 5)
    bias = torch.randn(2, 5)
    found = routing(lower, weight, num_iterations=3, bias_jd=bias)
    assert_near(found, squash(bias).expand(2, 2, 5))


# ------------------------------------------------ what others got wrong


@BOTH
def test_couplings_compete_over_upper_capsules(routing):
    """With one upper capsule the softmax has one term: c = 1 and v = squash(sum of votes).

    A softmax over lower capsules would give a weighted mean of the votes instead of their sum.
    """
    lower, weight = draw(num_upper=1)
    votes = torch.einsum("bip,ijpd->bijd", lower, weight)
    assert_near(routing(lower, weight, num_iterations=3), squash(votes.sum(1)))


@BOTH
@pytest.mark.parametrize("num_images", [2, 33])
def test_an_image_alone_gives_the_same_as_in_a_batch(routing, num_images):
    lower, weight = draw(num_images=num_images)
    batch = routing(lower, weight, num_iterations=3)
    for b in {0, num_images - 1}:
        alone = routing(lower[b : b + 1], weight, num_iterations=3)
        assert alone.shape == (1, 4, 7)  # a batch of one stays a batch
        assert_near(alone[0], batch[b])


@BOTH
def test_no_size_of_one_is_dropped(routing):
    found = routing(torch.ones(1, 1, 1), torch.ones(1, 1, 1, 1), num_iterations=2)
    assert_close(found, torch.full((1, 1, 1), 0.5))  # c = 1, s = 1, |v| = 1/2


@BOTH
def test_order_of_capsules(routing):
    """Procedure 1 sums over i and treats every j alike."""
    lower, weight = draw()
    found = routing(lower, weight, num_iterations=3)
    order = torch.randperm(6)
    assert_near(routing(lower[:, order], weight[order], num_iterations=3), found)
    order = torch.randperm(4)
    assert_near(routing(lower, weight[:, order], num_iterations=3), found[:, order])


@BOTH
def test_zero_lower_capsules(routing):
    """All s are zero: v is zero, and so are the gradients, not NaN."""
    lower, weight = (
        t.requires_grad_() for t in (torch.zeros(2, 6, 5), draw(dtype=torch.float32)[1])
    )
    found = routing(lower, weight, num_iterations=3)
    gradients = torch.autograd.grad(found.sum(), (lower, weight))
    for tensor in (found, *gradients):
        assert_close(tensor, torch.zeros_like(tensor))


# ------------------------------------------------ route is route_reference

SIZES = {  # num_images, num_lower, num_upper, lower_dim, upper_dim
    "one image, odd sizes": (1, 7, 3, 5, 6),
    "odd batch, paper poses": (37, 9, 10, 8, 16),
    "whole small block": (16, 5, 10, 8, 16),
    "all ones": (1, 1, 1, 1, 1),
}


def value_and_gradients(routing, lower, weight, bias, grad, **options):
    inputs = [t.clone().requires_grad_() for t in (lower, weight, bias) if t is not None]
    capsules = routing(*inputs[:2], bias_jd=None if bias is None else inputs[2], **options)
    return capsules.detach(), *torch.autograd.grad(capsules, inputs, grad, allow_unused=True)


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("num_iterations", [1, 2, 3, 4, 5])
def test_route_agrees_with_the_reference(num_iterations, dtype, sizes):
    lower, weight = draw(*sizes, dtype=dtype)
    _, _, num_upper, _, upper_dim = sizes
    some_bias = torch.randn(num_upper, upper_dim, dtype=dtype)
    grad = torch.randn(len(lower), num_upper, upper_dim, dtype=dtype)
    for bias, leaky, gradient in itertools.product(
        (None, some_bias), (False, True), ("all", "last")
    ):
        options = dict(num_iterations=num_iterations, leaky=leaky, gradient=gradient)
        found = value_and_gradients(route, lower, weight, bias, grad, **options)
        wanted = value_and_gradients(route_reference, lower, weight, bias, grad, **options)
        for one, other in zip(found, wanted, strict=True):
            assert_near(one, other)


def test_both_widths_of_the_kernel_from_the_cache_of_several_processes(tmp_path):
    """Batches of up to 16 images have kernels of their own. Each width compiled by a process of its
    own, then both loaded by a third: the names of compiled code must tell them apart.
    """
    code = """
import sys, torch
from capsnet.nn.routing import route, route_reference
weight = torch.randn(2, 3, 4, 4)
for num_images in map(int, sys.argv[1:]):
    lower = torch.randn(num_images, 2, 4)
    found = route(lower, weight, num_iterations=2)
    torch.testing.assert_close(found, route_reference(lower, weight, num_iterations=2))
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    for sizes in (["17"], ["16"], ["16", "17", "16", "17"]):
        command = [sys.executable, "-c", code, *sizes]
        finished = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert finished.returncode == 0, finished.stderr

    # Kernels older than lanes.py are forgotten: numba looks only at the file they are written in.
    kernels = list(tmp_path.rglob("routing_cpu.*.nbi"))
    for kernel in kernels:
        os.utime(kernel, (0, 0))
    subprocess.run([sys.executable, "-c", "import capsnet.nn.kernels.routing_cpu"], env=environment)
    assert kernels and not any(kernel.exists() for kernel in kernels)


@pytest.mark.parametrize("leaky", [False, True])
def test_gradcheck(leaky):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        lower, weight = draw(2, 3, 2, 3, 2)
        bias = torch.randn(2, 2).double()

        def routed(lower, weight, bias):
            return route(lower, weight, num_iterations=3, bias_jd=bias, leaky=leaky)

        assert torch.autograd.gradcheck(routed, [t.requires_grad_() for t in (lower, weight, bias)])
    finally:
        torch.set_num_threads(threads)


def test_autocast_does_not_reach_the_routing(monkeypatch):
    """A network runs under autocast; both ways, the reference's too, still sum in float32."""
    lower, weight = torch.rand(2, 6, 4), torch.randn(6, 3, 4, 5)
    expected = route_reference(lower, weight, num_iterations=3)
    for implementation in (RouteOnCPU, None):
        monkeypatch.setattr(routing, "_fastest", lambda *_, found=implementation: found)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = route(lower, weight, num_iterations=3)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_same_bits_again_and_for_any_number_of_threads():
    threads = torch.get_num_threads()
    lower, weight = draw(70, 40, 10, 8, 16, dtype=torch.float32)
    bias, grad = torch.randn(10, 16), torch.randn(70, 10, 16)
    runs = []
    try:
        for num_threads in (1, 1, 2, 3):
            torch.set_num_threads(num_threads)
            runs.append(value_and_gradients(route, lower, weight, bias, grad, num_iterations=3))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for one, other in zip(run[:3], runs[0][:3], strict=True):  # capsules, lower, weight
            assert torch.equal(one, other)
    assert torch.equal(runs[0][3], runs[1][3])


def test_bfloat16_is_summed_in_float32():
    """So it is the float32 result rounded once: within 2^-8 of each number."""
    lower, weight = (t.bfloat16() for t in draw(num_lower=200, dtype=torch.float32))
    found = route(lower, weight, num_iterations=3)
    wanted = route_reference(lower.float(), weight.float(), num_iterations=3)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), wanted, rtol=2**-8, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_pose_is_not_hidden(bad):
    lower, weight = draw(dtype=torch.float32)
    lower[1, 2, 3] = bad
    found = route(lower, weight, num_iterations=3)
    assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


def test_strided_and_empty_inputs():
    lower, weight = draw()
    strided = lower.transpose(0, 1).contiguous().transpose(0, 1)
    wanted = route_reference(lower, weight, num_iterations=2)
    turned = weight.transpose(0, 1).contiguous().transpose(0, 1)
    assert_near(route(strided, turned, num_iterations=2), wanted)
    assert route(lower[:0], weight, num_iterations=2).shape == (0, 4, 7)


def test_votes_are_never_stored():
    """The largest tensor kept for the backward pass is far below [b, i, j, d]."""
    lower, weight = draw(64, 50, 10, 8, 16, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        route(lower, weight.requires_grad_(), num_iterations=3)
    assert max(kept) <= 64 * 50 * 10 * 16 / 7


# ------------------------------------------------ errors


@BOTH
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(lower_bip=torch.ones(6, 5)), r"got \(6, 5\) and \(6, 4, 5, 7\)"),
        (dict(lower_bip=torch.ones(3, 7, 5)), r"\(3, 7, 5\) do not fit .* wanted \[b, 6, 5\]"),
        (dict(lower_bip=torch.ones(3, 6, 4)), r"\(3, 6, 4\) do not fit .* wanted \[b, 6, 5\]"),
        (dict(bias_jd=torch.ones(7, 4)), r"bias has shape \(7, 4\), wanted \[4, 7\]"),
        (dict(num_iterations=0), "at least 1 iteration, got 0"),
        (dict(gradient="some"), "gradient is 'some', wanted one of all, last"),
    ],
)
def test_errors(routing, change, message):
    lower, weight = draw(dtype=torch.float32)
    arguments = dict(lower_bip=lower, weight_ijpd=weight, num_iterations=3) | change
    with pytest.raises(ValueError, match=message):
        routing(**arguments)


@pytest.mark.parametrize("broken", ["scan", "gradients"])  # there, and back
def test_a_kernel_that_does_not_start_is_a_line_that_names_the_fallback(monkeypatch, broken):
    def fail(*_):
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    lower, weight = torch.randn(2, 6, 4, requires_grad=True), torch.randn(6, 3, 4, 5)
    with monkeypatch.context() as patch:
        patch.setattr(routing_cpu, broken, fail)
        with pytest.raises(ValueError) as error:
            route(lower, weight, num_iterations=3).sum().backward()
    wanted = "no kernel image is available): set routing.implementation=reference"
    assert wanted in str(error.value) and "\n" not in str(error.value)
    found = route(lower, weight, num_iterations=3, implementation="reference")
    assert_close(found, route_reference(lower, weight, num_iterations=3))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to"),
    ],
    ids=["gpu", "python", "torch"],
)
def test_too_little_memory_is_not_the_kernels_fault(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(routing_cpu, "scan", fail)
    with pytest.raises(type(error), match="memory" if str(error) else None):
        route(torch.randn(2, 6, 4), torch.randn(6, 3, 4, 5), num_iterations=3)


def test_an_implementation_that_is_none():
    with pytest.raises(ValueError, match="implementation is 'fast', wanted one of auto, reference"):
        route(
            torch.randn(2, 6, 4), torch.randn(6, 3, 4, 5), num_iterations=3, implementation="fast"
        )


def test_a_network_can_be_told_to_route_by_the_reference(monkeypatch):
    model = CapsNet(image_size=20, conv_channels=8, kernel_size=5, primary_types=2).eval()
    images = torch.rand(2, 1, 20, 20)
    expected = model(images).capsules
    monkeypatch.setattr(routing, "_fastest", lambda *_: pytest.fail("the kernel was chosen"))
    route_with(model, "reference")
    assert_close(model(images).capsules, expected)
    traced = model.digit.trace(model.lower_capsules(images))
    assert_close(traced.capsules[-1], expected)
