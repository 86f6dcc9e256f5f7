"""The Triton kernels compile for compute capabilities 8.0 and 9.0, without a GPU."""

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton, the compiler of the GPU kernels, is missing")

SHARED = 48 * 1024  # bytes per block that every GPU has
SIXTEEN = [["tt.divisibility", 16]]  # of pointers and integers, as a launch finds it


class Recorder:
    """Replaces a kernel and records the arguments and options of each launch."""

    def __init__(self, kernel) -> None:
        self.kernel, self.launches = kernel, []

    def __getitem__(self, grid):
        return lambda *args, **options: self.launches.append((self.kernel, args, options))


def record(num_images: int, leaky: bool, gradient: str, monkeypatch) -> list[tuple]:
    """The launches of a forward and a backward pass at the paper's sizes."""
    module = import_module("capsnet.nn.kernels.routing_triton")
    recorders = [Recorder(module._scan_kernel), Recorder(module._gradient_kernel)]
    monkeypatch.setattr(module, "_scan_kernel", recorders[0])
    monkeypatch.setattr(module, "_gradient_kernel", recorders[1])
    lower = torch.zeros(num_images, 1152, 8, requires_grad=True)
    weight = torch.zeros(1152, 10, 8, 16, requires_grad=True)
    bias = torch.zeros(10, 16, requires_grad=True)
    module.RouteInTriton.apply(lower, weight, bias, 2, leaky, gradient).sum().backward()
    return recorders[0].launches + recorders[1].launches


def source(kernel, args):
    """The kernel specialized to its arguments, as a launch would compile it."""
    signature, constants, known = {}, {}, {}
    for place, (parameter, value) in enumerate(zip(kernel.params, args, strict=True)):
        if parameter.is_constexpr:
            kind, constants[(place,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            kind, known[(place,)] = "*fp32", SIXTEEN
        elif value == 1 and not parameter.do_not_specialize:
            kind, constants[(place,)] = "constexpr", value
        else:
            kind = "i32" if isinstance(value, int) else "fp32"
            if kind == "i32" and value % 16 == 0 and not parameter.do_not_specialize:
                known[(place,)] = SIXTEEN
        signature[parameter.name] = kind
    return triton.compiler.ASTSource(kernel, signature, constants, known)


def resources(cubin: Path) -> tuple[int, int]:
    """Registers and bytes of stack (spilled registers) per thread."""
    program = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    done = subprocess.run([program, "-res-usage", cubin], capture_output=True, text=True)
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout).groups()
    return int(registers), int(stack)


@pytest.mark.parametrize(
    ("tf32", "num_images", "leaky", "gradient", "num_launches"),
    [
        (False, 128, False, "all", 3),  # forward scan, backward scan, gradients
        (True, 128, False, "all", 3),
        (False, 1, True, "last", 2),  # no backward scan
    ],
)
def test_every_kernel_compiles_and_spills_hardly_a_register(
    tf32, num_images, leaky, gradient, num_launches, tmp_path, monkeypatch
):
    """The gradients in TF32 may spill: on an H200 faster than with twice the threads."""
    torch.backends.cuda.matmul.allow_tf32 = tf32
    launches = record(num_images, leaky, gradient, monkeypatch)
    torch.backends.cuda.matmul.allow_tf32 = False
    assert len(launches) == num_launches
    for kernel, args, options in launches:
        for capability in (80, 90):
            target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
            compiled = triton.compile(source(kernel, args), target=target, options=options)
            cubin = tmp_path / "kernel.cubin"
            cubin.write_bytes(compiled.asm["cubin"])
            registers, stack = resources(cubin)
            spilled = 32 if tf32 and kernel.fn.__name__ == "_gradient_kernel" else 0
            shared = compiled.metadata.shared
            print(f"{compiled.name} sm_{capability}: {registers=} {stack=} {shared=}")
            assert stack <= spilled and registers <= 255 and shared <= SHARED
