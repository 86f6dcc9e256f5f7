"""Routing on a GPU against `route_reference`; without a GPU, in Triton's interpreter.

The interpreter runs a kernel's own lines with numpy, one call for each tile, so tiles are made
large there: a test then takes seconds. What it cannot show is that the kernels compile.
"""

import importlib
import itertools
import sys

import pytest
import torch
from torch.testing import assert_close

from capsnet.nn.routing import route_reference, squash

triton = pytest.importorskip("triton", reason="triton, the compiler of the GPU kernels, is missing")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAME = "capsnet.nn.kernels.routing_triton"
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}  # of the largest magnitude of a tensor


@pytest.fixture(scope="module")
def module():
    """The module of the kernels, for the interpreter if there is no GPU."""
    if DEVICE == "cuda":
        yield importlib.import_module(NAME)
        return
    with pytest.MonkeyPatch.context() as patch:
        interpret(patch)
        known = sys.modules.pop(NAME, None)
        yield importlib.import_module(NAME)
        del sys.modules[NAME]
        if known is not None:
            sys.modules[NAME] = known


def interpret(patch):
    """Torch has imported triton by now, so its own functions are for the compiler: change them."""
    from triton.runtime import interpreter, jit

    patch.setenv("TRITON_INTERPRET", "1")
    for library in (triton.language, triton.language.standard):
        for name, function in list(vars(library).items()):
            if isinstance(function, jit.JITFunction):
                patch.setattr(library, name, interpreter.InterpretedFunction(function.fn))
    patch_tensor = interpreter._patch_lang_tensor

    def patch_tensor_and_index(tensor, scope):
        patch_tensor(tensor, scope)  # its __index__ is an error since numpy 2.4
        scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())

    patch.setattr(interpreter, "_patch_lang_tensor", patch_tensor_and_index)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def route(module):
    def routed(
        lower,
        weight,
        *,
        num_iterations,
        bias_jd=None,
        leaky=False,
        gradient="all",
    ):
        _, num_upper, _, upper_dim = weight.shape
        bias = weight.new_zeros(num_upper, upper_dim) if bias_jd is None else bias_jd
        return module.RouteInTriton.apply(lower, weight, bias, num_iterations, leaky, gradient)

    return routed


@pytest.fixture
def large_tiles(module, monkeypatch):
    if DEVICE == "cpu":
        monkeypatch.setattr(module, "SCAN_TILE", 320)
        monkeypatch.setattr(module, "SCAN_LOWER", 1024)
        monkeypatch.setattr(module, "GRADIENT_TILE", 2**19)
        monkeypatch.setattr(module, "MATRIX_SIZE", 2)


@pytest.fixture
def small_tiles(module, monkeypatch):
    """So that few capsules fill several programs, each with several turns of its loop."""
    monkeypatch.setattr(module, "SCAN_TILE", 256)
    monkeypatch.setattr(module, "SCAN_LOWER", 2)
    monkeypatch.setattr(module, "_multiprocessors", lambda device: 6)
    monkeypatch.setattr(module, "GRADIENT_TILE", 768)


@pytest.fixture
def tf32():
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


def draw(num_images=3, num_lower=6, num_upper=4, lower_dim=5, upper_dim=7, dtype=torch.float64):
    lower_bip = torch.randn(num_images, num_lower, lower_dim, dtype=dtype)
    weight_ijpd = torch.randn(num_lower, num_upper, lower_dim, upper_dim, dtype=dtype)
    return lower_bip.to(DEVICE), (weight_ijpd * 0.25).to(DEVICE)


def draw_like(tensor, *sizes):
    return torch.randn(sizes, dtype=tensor.dtype).to(DEVICE)


def assert_near(found, wanted):
    assert found.shape == wanted.shape and found.dtype == wanted.dtype
    error = (found - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30)
    assert error <= TOLERANCE[wanted.dtype], f"relative error {error:.1e}"


def value_and_gradients(routing, lower, weight, bias, grad, **options):
    inputs = [t.clone().requires_grad_() for t in (lower, weight, bias) if t is not None]
    capsules = routing(*inputs[:2], bias_jd=None if bias is None else inputs[2], **options)
    return capsules.detach(), *torch.autograd.grad(capsules, inputs, grad, allow_unused=True)


def compare(route, lower, weight, bias=None, **options):
    grad = draw_like(lower, len(lower), weight.shape[1], weight.shape[3])
    found = value_and_gradients(route, lower, weight, bias, grad, **options)
    wanted = value_and_gradients(route_reference, lower, weight, bias, grad, **options)
    for one, other in zip(found, wanted, strict=True):
        assert_near(one, other)


# ------------------------------------------------ it is route_reference

FLAGS = list(itertools.product((False, True), (False, True), ("all", "last")))


def compare_with_flags(route, sizes, dtype, num_iterations, flags):
    lower, weight = draw(*sizes, dtype=dtype)
    _, _, num_upper, _, upper_dim = sizes
    some_bias = draw_like(lower, num_upper, upper_dim)
    for biased, leaky, gradient in flags:
        compare(
            route,
            lower,
            weight,
            some_bias if biased else None,
            num_iterations=num_iterations,
            leaky=leaky,
            gradient=gradient,
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("num_iterations", [1, 2, 3, 4, 5])
def test_it_agrees_with_the_reference(route, num_iterations, dtype):
    """One image, three classes, poses of 5 and 7; the choices go round."""
    flags = FLAGS[num_iterations % 4 :: 4]
    compare_with_flags(route, (1, 7, 3, 5, 7), dtype, num_iterations, flags)


SIZES = {  # num_images, num_lower, num_upper, lower_dim, upper_dim
    "all ones": (1, 1, 1, 1, 1),
    "small poses": (5, 3, 2, 2, 3),
    "odd batch": (37, 7, 3, 5, 7),
    "one class": (2, 9, 1, 8, 16),
    "many classes": (3, 4, 11, 3, 2),
}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_any_size(route, small_tiles, sizes):
    compare_with_flags(route, sizes, torch.float64, 3, [(True, True, "all")])


@pytest.mark.parametrize("sizes", [(3, 4, 3, 5, 7), (20, 5, 10, 8, 16), (1, 3, 2, 17, 20)], ids=str)
def test_by_matrix_products(route, tf32, monkeypatch, sizes):
    """With TF32 allowed; the interpreter multiplies in float32, a GPU with 10 bits."""
    if DEVICE == "cuda":
        monkeypatch.setitem(TOLERANCE, torch.float32, 5e-3)
    compare_with_flags(route, sizes, torch.float32, 3, [(True, True, "all"), (True, False, "last")])


@pytest.mark.parametrize("num_lower", [1152, 3200, 4608])
def test_the_networks_sizes(route, large_tiles, num_lower):
    """Few images, and votes small enough that three passes do not magnify the rounding."""
    lower, weight = draw(2, num_lower, 10, 8, 16, dtype=torch.float32)
    compare(route, lower, weight * 0.1, draw_like(lower, 10, 16), num_iterations=3)


def test_gradcheck(route):
    lower, weight = draw(2, 3, 2, 3, 2)
    bias = draw_like(lower, 2, 2)

    def routed(lower, weight):
        return route(lower, weight, num_iterations=3, bias_jd=bias, leaky=True)

    inputs = [t.requires_grad_() for t in (lower, weight)]
    assert torch.autograd.gradcheck(routed, inputs, fast_mode=True)


# ------------------------------------------------ what others got wrong


def test_two_passes_by_hand(route):
    """As in test_routing.py: votes 2 and 0, s_1 = 2e/(e+1), v_1 = s_1^2 / (1 + s_1^2)."""
    lower = torch.ones(1, 1, 1, device=DEVICE).double()
    weight = torch.tensor([2.0, 0.0], device=DEVICE).double().view(1, 2, 1, 1)
    s = 1.4621171572600098
    wanted = torch.tensor([[[s * s / (1 + s * s)], [0.0]]], dtype=torch.float64, device=DEVICE)
    assert_near(route(lower, weight, num_iterations=2), wanted)
    assert route(lower, weight, num_iterations=3)[0, 0, 0] > 0.76


def test_couplings_compete_over_upper_capsules(route):
    lower, weight = draw(num_upper=1)
    votes = torch.einsum("bip,ijpd->bijd", lower, weight)
    assert_near(route(lower, weight, num_iterations=3), squash(votes.sum(1)))


def test_an_image_alone_gives_the_same_as_in_a_batch(route, small_tiles):
    lower, weight = draw(num_images=33)
    batch = route(lower, weight, num_iterations=3)
    for b in (0, 32):
        assert_near(route(lower[b : b + 1], weight, num_iterations=3)[0], batch[b])


def test_zero_lower_capsules(route):
    """All s are zero: v is zero, and so are the gradients, not NaN."""
    weight = draw(dtype=torch.float32)[1].requires_grad_()
    lower = torch.zeros(2, 6, 5, device=DEVICE, requires_grad=True)
    found = route(lower, weight, num_iterations=3)
    gradients = torch.autograd.grad(found.sum(), (lower, weight))
    for tensor in (found, *gradients):
        assert_close(tensor, torch.zeros_like(tensor))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # numpy's, of inf - inf
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_pose_is_not_hidden_and_stays_in_its_image(route, small_tiles, bad):
    lower, weight = draw(num_images=5, dtype=torch.float32)
    lower[1, 2, 3] = bad
    lower.requires_grad_()
    found = route(lower, weight, num_iterations=3)
    (gradient,) = torch.autograd.grad(found.sum(), lower)
    others = [0, 2, 3, 4]
    assert found[1].isnan().all() and found[others].isfinite().all()
    assert gradient[1].isnan().any() and gradient[others].isfinite().all()


def test_strided_inputs(route):
    lower, weight = draw()
    bias, grad = draw_like(lower, 4, 7), draw_like(lower, 3, 4, 7)

    def turn(tensor):
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)

    options = dict(num_iterations=3)
    wanted = value_and_gradients(route_reference, lower, weight, bias, grad, **options)
    found = value_and_gradients(route, turn(lower), turn(weight), turn(bias), turn(grad), **options)
    for one, other in zip(found, wanted, strict=True):
        assert_near(one, other)


def test_autocast_does_not_reach_it(route):
    lower, weight = draw(dtype=torch.float32)
    wanted = route_reference(lower, weight, num_iterations=3)
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        found = route(lower, weight, num_iterations=3)
    assert_near(found, wanted)


def test_same_bits_again(route, small_tiles):
    lower, weight = draw(17, 5, 3, 5, 7, dtype=torch.float32)
    bias, grad = draw_like(lower, 3, 7), draw_like(lower, 17, 3, 7)
    runs = [
        value_and_gradients(route, lower, weight, bias, grad, num_iterations=3) for _ in range(2)
    ]
    for one, other in zip(*runs, strict=True):
        assert torch.equal(one, other)


def test_votes_are_never_stored(route, large_tiles):
    """The largest tensor kept for the backward pass is far below [b, i, j, d]."""
    lower, weight = draw(64, 50, 10, 2, 16, dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        route(lower, weight.requires_grad_(), num_iterations=3)
    assert kept and max(kept) <= 64 * 50 * 10 * 16 / 7
