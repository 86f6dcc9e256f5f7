"""The Triton kernels against `route_reference` in value and gradients.

Without a GPU they run in Triton's interpreter, which executes each tile with numpy; whether they
compile is the matter of test_routing_compiled.py.
"""

import importlib
import sys

import pytest
import torch

from tests.routing import TOLERANCE, compare

triton = pytest.importorskip("triton", reason="triton, the compiler of the GPU kernels, is missing")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NAME = "capsnet.nn.kernels.routing_triton"


@pytest.fixture(scope="module")
def module():
    """The kernels' module, imported anew for the interpreter if there is no GPU."""
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
    """Replace Triton's own compiled functions: torch has already imported triton."""
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
    def routed(lower, weight, *, num_iterations, bias_jd=None, leaky=False, gradient="all"):
        _, num_upper, _, upper_dim = weight.shape
        bias = weight.new_zeros(num_upper, upper_dim) if bias_jd is None else bias_jd
        return module.RouteInTriton.apply(lower, weight, bias, num_iterations, leaky, gradient)

    return routed


@pytest.fixture(autouse=True)
def small_tiles(module, monkeypatch):
    """A few capsules then fill several programs with several turns of their loops."""
    monkeypatch.setattr(module, "SCAN_TILE", 256)
    monkeypatch.setattr(module, "SCAN_LOWER", 2)
    monkeypatch.setattr(module, "_multiprocessors", lambda device: 2)
    monkeypatch.setattr(module, "GRADIENT_TILE", 768)


@pytest.fixture
def tf32():
    torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cuda.matmul.allow_tf32 = False


def draw(*sizes, dtype=torch.float64):
    """Lower capsules, weights, bias and dL/dcapsules for b, i, j, p, d, not contiguous."""
    b, i, j, p, d = sizes
    shapes = (b, i, p), (i, j, p, d), (j, d), (b, j, d)
    tensors = [0.5 * torch.randn(shape, dtype=dtype).to(DEVICE) for shape in shapes]
    return [t.transpose(0, 1).contiguous().transpose(0, 1) for t in tensors]


CASES = {  # images, lower and upper capsules, lower and upper pose; options of route
    "one capsule, two passes": ((1, 1, 1, 1, 1), dict(num_iterations=2)),
    "one pass": ((2, 5, 3, 3, 5), dict(num_iterations=1)),
    "odd sizes, three passes": ((3, 7, 3, 5, 7), dict(num_iterations=3)),
    "leaky": ((3, 7, 3, 5, 7), dict(num_iterations=3, leaky=True)),
    "several blocks of images": ((37, 3, 2, 2, 3), dict(num_iterations=2)),
    "the paper's upper capsules and poses": ((2, 9, 10, 8, 16), dict(num_iterations=2)),
}


@pytest.mark.parametrize(("sizes", "options"), CASES.values(), ids=CASES)
def test_the_kernels_equal_the_reference_in_double(route, sizes, options):
    compare(route, *draw(*sizes), **options)


@pytest.mark.parametrize("gradient", ["all", "last"])
@pytest.mark.parametrize("sizes", [(20, 5, 3, 8, 16), (1, 3, 2, 17, 20)], ids=str)
def test_tensor_cores_equal_the_reference(route, tf32, monkeypatch, sizes, gradient):
    """With TF32 allowed. The interpreter multiplies in float32, a GPU with 10 bits."""
    if DEVICE == "cuda":
        monkeypatch.setitem(TOLERANCE, torch.float32, 5e-3)
    options = dict(num_iterations=3, leaky=True, gradient=gradient)
    compare(route, *draw(*sizes, dtype=torch.float32), **options)
