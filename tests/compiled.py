"""Compile the Triton kernels to machine code without a GPU and print the resources they use.

    python -m tests.compiled

records the kernel launches of forward and backward passes and compiles each with Triton and its
ptxas. Prints one line of JSON per kernel and compute capability: registers and bytes of stack
(spilled registers) of a thread, bytes of shared memory of a block.
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
CALLS = (  # TF32, images, leaky, gradient: a training, a training with TF32, a single image
    (False, 128, False, "all"),
    (True, 128, False, "all"),
    (False, 1, True, "last"),
)
KERNELS = ("_scan_kernel", "_gradient_kernel")
SIXTEEN = [["tt.divisibility", 16]]  # of pointers and integers, as a launch finds it


class Recorder:
    """Replaces a kernel and records the arguments of each launch."""

    def __init__(self, kernel, launches: list) -> None:
        self.kernel, self.launches = kernel, launches

    def __getitem__(self, grid):
        return lambda *args, **options: self.launches.append((self.kernel, args, options))


def record() -> list:
    """The launches of forward and backward passes at the paper's sizes."""
    launches: list = []
    for name in KERNELS:
        setattr(routing_triton, name, Recorder(getattr(routing_triton, name), launches))
    for tf32, num_images, leaky, gradient in CALLS:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        lower = torch.zeros(num_images, 1152, 8, requires_grad=True)
        weight = torch.zeros(1152, 10, 8, 16, requires_grad=True)
        bias = torch.zeros(10, 16, requires_grad=True)
        routing_triton.RouteInTriton.apply(lower, weight, bias, 3, leaky, gradient).sum().backward()
    return launches


def source(kernel, args) -> ASTSource:
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
    return ASTSource(kernel, signature, constants, known)


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers and bytes of stack per thread."""
    program = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", done.stdout)
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
            registers, stack = resources(compiled.asm["cubin"])
            found = {"kernel": kernel.fn.__name__, "capability": capability, "tf32": tf32}
            found |= {"registers": registers, "stack": stack, "shared": compiled.metadata.shared}
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
