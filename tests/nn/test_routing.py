"""Squash and routing by hand, common mistakes, and the CPU kernel against `route_reference`."""

import importlib.util
import itertools
import runpy
from unittest.mock import Mock

import numba
import pytest
import torch
from torch.testing import assert_close

from capsnet.nn import routing
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.kernels import routing_cpu
from capsnet.nn.layers import route_with
from capsnet.nn.routing import route, route_reference, squash, trace
from tests.routing import assert_near, compare, value_and_gradients

BOTH = pytest.mark.parametrize("routing", [route_reference, route], ids=["reference", "route"])
FLAGS = [*itertools.product((False, True), (False, True), ("all", "last"))]  # bias, leaky, gradient


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def draw(num_images=3, num_lower=6, num_upper=4, lower_dim=5, upper_dim=7, dtype=torch.float64):
    lower_bip = torch.randn(num_images, num_lower, lower_dim, dtype=dtype)
    weight_ijpd = torch.randn(num_lower, num_upper, lower_dim, upper_dim, dtype=dtype)
    return lower_bip, weight_ijpd * 0.25


def votes_of(lower, weight):
    return torch.einsum("bip,ijpd->bijd", lower, weight)


def test_squash_of_3_4_has_length_25_26():
    """|s| = 5, so |v| = 25 / (1 + 25), along s / 5 = (0.6, 0.8), whatever the dimension. v is about
    |s| s near zero, so value and gradient are zero there.
    """
    s, v = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 0.0]]) * 25 / 26
    assert_close(squash(s.requires_grad_()), v)
    assert_close(squash(s.T, dim=0), v.T)
    squash(s).sum().backward()
    assert s.grad[1].eq(0).all()


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


@pytest.mark.parametrize("leaky", [False, True])
def test_the_trace_has_the_couplings_of_every_iteration(leaky):
    """The first are those of J zero logits, one more if leaky. With them Eq. 2 and 1 by hand give
    the reference's capsules after each iteration.
    """
    lower, weight = draw(num_upper=4)
    options = {"bias_jd": torch.randn(4, 7, dtype=torch.float64), "leaky": leaky}
    traced = trace(lower, weight, num_iterations=4, **options)
    assert_close(traced.couplings[0], torch.full((3, 6, 4), 0.2 if leaky else 0.25).double())
    for k in range(4):
        wanted = route_reference(lower, weight, num_iterations=k + 1, **options)
        s = torch.einsum("bij,bijd->bjd", traced.couplings[k], votes_of(lower, weight))
        assert_near(traced.capsules[k], wanted)
        assert_near(squash(s + options["bias_jd"]), wanted)


@BOTH
def test_an_image_alone_gives_the_same_as_in_a_batch(routing):
    """Logits shared by the batch, or a squeeze of a batch of one, would show here."""
    lower, weight = draw(num_images=17, dtype=torch.float32)
    batch = routing(lower, weight, num_iterations=3)
    for b in (0, 16):
        assert_near(routing(lower[b : b + 1], weight, num_iterations=3), batch[b : b + 1])


@pytest.mark.parametrize(
    ("num_iterations", "dtype", "sizes"),
    [
        (1, torch.float64, (1, 7, 3, 5, 6)),  # one image, poses that need padding
        (2, torch.float64, (3, 2, 62, 4, 4)),  # many classes
        (2, torch.float64, (1, 7, 3, 5, 6)),
        (4, torch.float64, (1, 7, 3, 5, 6)),
        (2, torch.float64, (1, 1, 1, 1, 1)),
        (3, torch.float32, (37, 9, 10, 8, 16)),  # two blocks of 32 images, the paper's poses
        (3, torch.float32, (16, 5, 10, 8, 16)),  # a full block of 16 images
    ],
)
def test_the_cpu_kernel_equals_the_reference(num_iterations, dtype, sizes):
    lower, weight = (
        t.transpose(0, 1).contiguous().transpose(0, 1) for t in draw(*sizes, dtype=dtype)
    )
    lower[1:2] = 0  # a black image, if there are several: squash at zero
    _, _, num_upper, _, upper_dim = sizes
    bias = torch.randn(num_upper, upper_dim, dtype=dtype)
    grad = torch.randn(len(lower), num_upper, upper_dim, dtype=dtype)
    for biased, leaky, gradient in FLAGS:
        arguments = lower, weight, bias if biased else None, grad
        options = dict(num_iterations=num_iterations, leaky=leaky, gradient=gradient)
        compare(route, *arguments, **options)


@pytest.mark.parametrize("leaky", [False, True])
def test_gradcheck(leaky):
    """In double, through every pass: couplings taken as constants would be wrong here."""
    inputs = [t.requires_grad_() for t in (*draw(2, 3, 2, 3, 2), torch.randn(2, 2).double())]

    def routed(lower, weight, bias):
        return route_reference(lower, weight, num_iterations=3, bias_jd=bias, leaky=leaky)

    assert torch.autograd.gradcheck(routed, inputs)


def test_the_last_gradient_takes_the_couplings_as_constants():
    """With them fixed, s is linear in the weights: dL/dW = c_ij u_i dL/ds_j."""
    lower, weight = draw()
    weight.requires_grad_()
    traced = trace(lower, weight, num_iterations=3)
    s = torch.einsum("bij,bijd->bjd", traced.couplings[-1], votes_of(lower, weight))
    (wanted,) = torch.autograd.grad(squash(s).sum(), weight)
    found = route_reference(lower, weight, num_iterations=3, gradient="last").sum()
    assert_near(torch.autograd.grad(found, weight)[0], wanted)


@pytest.mark.parametrize("implementation", ["auto", "reference"])
def test_half_precision_and_autocast_are_summed_in_float32(implementation):
    """The result is the float32 result rounded once: within 2^-8 of each number."""
    lower, weight = (t.bfloat16() for t in draw(num_lower=200, dtype=torch.float32))
    options = dict(num_iterations=3, implementation=implementation)
    wanted = route_reference(lower.float(), weight.float(), num_iterations=3)
    found = route(lower, weight, **options)
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), wanted, rtol=2**-8, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_near(route(lower.float(), weight.float(), **options), wanted)


def test_the_same_bits_for_any_number_of_threads():
    """Capsules and gradients of lower capsules and weights; dL/dbias is a sum of torch."""
    threads = torch.get_num_threads()
    lower, weight = draw(70, 40, 10, 8, 16, dtype=torch.float32)
    grad, runs = torch.randn(70, 10, 16), []
    try:
        for num_threads in (1, 1, 2, 3):
            torch.set_num_threads(num_threads)
            runs.append(value_and_gradients(route, lower, weight, None, grad, num_iterations=3))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


def test_a_non_finite_pose_makes_its_image_nan():
    lower, weight = draw(dtype=torch.float32)
    for bad in (float("nan"), float("inf")):
        lower[1, 2, 3] = bad
        found = route(lower, weight, num_iterations=3)
        assert found[1].isnan().all() and found[[0, 2]].isfinite().all()


def test_the_votes_are_not_stored():
    """All tensors kept for the backward pass are far smaller than [b, i, j, d]."""
    lower, weight = draw(64, 50, 10, 8, 16, dtype=torch.float32)
    kept = []
    keep = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()), abs)
    with keep:
        route(lower, weight.requires_grad_(), num_iterations=3)
    assert max(kept) <= 64 * 50 * 10 * 16 / 7


PROGRAM = """
import torch
from numba import njit
from capsnet.nn.kernels.lanes import add, lane_arrays, load, store

@njit(cache=True)
def double(array):
    value = load(array, (0,))
    store(array, (0,), add(value, value))

for width in widths:
    tensor = torch.ones(2, width)
    double(*lane_arrays(tensor))
    assert tensor[0].eq(2).all() and tensor[1].eq(1).all(), width
"""


def test_the_cache_keeps_blocks_of_16_and_32_images_apart(tmp_path, monkeypatch):
    """The second program compiles one width and loads the other."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    (tmp_path / "program.py").write_text(PROGRAM)
    for widths, loaded in (([32], 0), ([16, 32], 1)):
        done = runpy.run_path(str(tmp_path / "program.py"), {"widths": widths})
        assert sum(done["double"].stats.cache_hits.values()) == loaded


@BOTH
@pytest.mark.parametrize(
    "change",
    [dict(bias_jd=torch.ones(7, 4)), dict(num_iterations=0), dict(gradient="some"),
     dict(lower_bip=torch.ones(3, 7, 5))],
)  # fmt: skip
def test_wrong_arguments(routing, change):
    lower, weight = draw(dtype=torch.float32)
    arguments = dict(lower_bip=lower, weight_ijpd=weight, num_iterations=3) | change
    with pytest.raises(ValueError, match=r"\(6, 4, 5, 7\)|\(7, 4\), wanted|got 0|'some', wanted"):
        routing(**arguments)


@pytest.mark.parametrize("broken", ["scan", "gradients"])  # forward, backward
def test_a_kernel_that_does_not_start_is_an_error_that_names_the_reference(monkeypatch, broken):
    """What is out of memory is raised unchanged."""
    lower, weight = draw(dtype=torch.float32)
    for error in (torch.OutOfMemoryError("memory"), MemoryError("memory")):
        monkeypatch.setattr(routing_cpu, "scan", Mock(side_effect=error))
        with pytest.raises(type(error), match="memory"):
            route(lower, weight, num_iterations=3)
    monkeypatch.undo()
    error = RuntimeError("no kernel image is available\nfor execution on the device")
    monkeypatch.setattr(routing_cpu, broken, Mock(side_effect=error))
    with pytest.raises(ValueError) as error:
        route(lower.requires_grad_(), weight, num_iterations=3).sum().backward()
    wanted = "no kernel image is available): set routing.implementation=reference"
    assert wanted in str(error.value) and "\n" not in str(error.value)


def test_route_with_sets_the_implementation_of_a_network(monkeypatch):
    model = CapsNet(image_size=20, conv_channels=8, kernel_size=5, primary_types=2).eval()
    images = torch.rand(2, 1, 20, 20)
    expected = model(images).capsules
    monkeypatch.setattr(routing, "_fastest", lambda *_: pytest.fail("the kernel was chosen"))
    route_with(model, "reference")
    assert_close(model(images).capsules, expected)


def test_triton_routes_to_at_most_32_classes(monkeypatch, capsys):
    """Above, PyTorch does, and one line says so once."""
    routing.say_once.cache_clear()
    for _ in range(2):
        assert routing._fastest("cuda", 33) is None
    assert capsys.readouterr().err.count("33 classes: above 32 PyTorch, not Triton") == 1
    monkeypatch.setattr(routing, "find_spec", lambda name: None)  # a system without Triton
    assert routing._fastest("cuda", 32) is None and not capsys.readouterr().err
    if importlib.util.find_spec("triton"):
        monkeypatch.undo()
        assert routing._fastest("cuda", 32).__name__ == "RouteInTriton"
