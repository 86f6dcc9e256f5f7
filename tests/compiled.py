"""Compile every Triton kernel to machine code, without a GPU, and print what each needs of one.

    python -m tests.compiled

records the launches of passes there and back and compiles each that differs with Triton's own
compiler and the ptxas that it brings. A line of JSON each: kernel, compute capability, registers
and bytes of stack (spilled registers) of a thread, bytes of shared memory of a block.
"""

import json
import re
import subprocess
import tempfile
from pathlib import Path

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from capsnet.nn.kernels import routing_triton

CAPABILITIES = (80, 90)
# Images, lower capsules, iterations, leaky, gradient: of a training, of a GPU's test and a CPU's,
# of one image; without agreement; by option. The first two also with TF32, as a GPU trains.
CALLS = (
    (128, 1152, 3, False, "all"),
    (128, 3200, 3, False, "all"),
    (1000, 1152, 3, False, "all"),
    (100, 3200, 3, False, "all"),
    (1, 1152, 3, False, "all"),
    (128, 1152, 1, False, "all"),
    (128, 1152, 3, True, "last"),
)
KERNELS = ("_scan_kernel", "_gradient_kernel")
SIXTEEN = [["tt.divisibility", 16]]  # what a launch finds out of its arguments


class Recorder:
    """In a kernel's place: keeps the arguments of each launch in a list."""

    def __init__(self, kernel, launches: list) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *args, **options: self.launches.append((self.kernel, args, options))


def record() -> list:
    """The launches of passes there and back, at the paper's sizes."""
    launches: list = []
    for name in KERNELS:
        setattr(routing_triton, name, Recorder(getattr(routing_triton, name), launches))
    calls = [(False, call) for call in CALLS] + [(True, call) for call in CALLS[:2]]
    for tf32, (num_images, num_lower, iterations, leaky, gradient) in calls:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        lower = torch.zeros(num_images, num_lower, 8, requires_grad=True)
        weight = torch.zeros(num_lower, 10, 8, 16, requires_grad=True)
        bias = torch.zeros(10, 16, requires_grad=True)
        options = iterations, leaky, gradient
        routing_triton.RouteInTriton.apply(lower, weight, bias, *options).sum().backward()
    return launches


def source(kernel, args) -> ASTSource:
    """The kernel for arguments of these types and constants, as a launch would compile it."""
    signature, constants, known = {}, {}, {}
    for place, (parameter, value) in enumerate(zip(kernel.params, args, strict=True)):
        if parameter.is_constexpr:
            kind, constants[(place,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            kind, known[(place,)] = "*fp32", SIXTEEN
        elif value == 1 and not parameter.do_not_specialize:  # Triton makes it a constant
            kind, constants[(place,)] = "constexpr", value
        else:
            kind = "i32" if isinstance(value, int) else "fp32"
            if kind == "i32" and value % 16 == 0 and not parameter.do_not_specialize:
                known[(place,)] = SIXTEEN
        signature[parameter.name] = kind
    return ASTSource(kernel, signature, constants, known)


def needs(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack of a thread."""
    program = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        told = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", told.stdout)
    return int(found[1]), int(found[2])


def main() -> None:
    each = {}
    for kernel, args, options in record():
        wanted = source(kernel, args)
        each[wanted.hash(), repr(options)] = kernel, wanted, options, args[-1]
    for kernel, wanted, options, tf32 in each.values():
        for capability in CAPABILITIES:
            target = GPUTarget("cuda", capability, 32)
            compiled = triton.compile(wanted, target=target, options=options)
            registers, stack = needs(compiled.asm["cubin"])
            found = {"kernel": kernel.fn.__name__, "capability": capability, "tf32": tf32}
            found |= {"registers": registers, "stack": stack, "shared": compiled.metadata.shared}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
