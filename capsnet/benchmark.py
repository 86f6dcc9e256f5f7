"""Measure the speed and memory of training, routing and batches.

The speed of a shared machine changes within seconds. Therefore a round times every candidate once.
The table shows medians over the rounds, also of ratios, and ranges in brackets. Images are random
bytes, because no time depends on pixel values. A 36x36 image shows two digits. Targets are for
batches of 128 on two CPU cores with AVX512-BF16.

`training` is an eager training step, from the draw of its batch to the new weights; on CUDA
`captured` is the same step as a CUDA graph. `convolve` is the forward and backward pass of its
convolutions alone, `conv2d` the same with PyTorch's function. `route` and `route_reference` are
forward and backward passes of three iterations in float32, on CUDA with TF32 products if a training
uses them. Their memory is the peak of a pass beyond what is held before it: the allocator's on
CUDA, else the process's.
"""

if not __package__:
    raise SystemExit("this is no script: run `python -m capsnet.benchmark` in the repository root")

import argparse
import logging
import shlex
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu

from capsnet import program_parser
from capsnet.data.batches import Batch, compose_batch, training_draws
from capsnet.data.mnist import Digits
from capsnet.files import write_text
from capsnet.learning import device as hardware
from capsnet.learning.evaluation import predict
from capsnet.learning.step import TrainingStep
from capsnet.learning.training import WARM_UP_STEPS
from capsnet.losses import Losses, margin_loss, weighted_losses
from capsnet.nn.capsnet import CapsNet, Prediction
from capsnet.nn.convolution import convolve
from capsnet.nn.routing import route, route_reference, squash
from capsnet.provenance import record

MIN_RUN_TIME = 0.2  # seconds for which a round times a candidate
TASKS = {28: {"num_digits": 1, "max_shift": 2}, 36: {"num_digits": 2, "max_shift": 4}}  # by size
TARGETS = {  # least ratios
    ("speed", "training", "convolve"): 0.8,
    ("speed", "composition", "training"): 20,
    ("speed", "route", "route_reference"): 5,
    ("memory", "route_reference", "route"): 10,
}


def main() -> None:
    """Print the report and write it to `--out`."""
    options = parse()
    try:
        device = hardware.choose_device()
        dtype = hardware.choose_dtype(options.precision, device)
        hardware.allow_tf32(device, dtype)  # a training makes this call and the next
        hardware.keep_freed_memory()
        pixels = torch.randint(256, (60_000, 28, 28), dtype=torch.uint8)
        digits = Digits(pixels, torch.randint(10, (60_000,))).to(device)
        about = {"command": shlex.join(["python", "-m", "capsnet.benchmark", *sys.argv[1:]])}
        about |= record(device, dtype) | {"threads": torch.get_num_threads()}
        measured = {
            f"{size}x{size}, b = {batch}": measure(size, digits, dtype, batch, options.rounds)
            for size in TASKS
            for batch in options.batch_size
        }
        lines = "".join(f"- {name}: `{value}`\n" for name, value in about.items())
        table = compare(measured).to_markdown(disable_numparse=True)
        note = __doc__.split("\n\n", 1)[1]
        text = f"# Benchmark\n\n{lines}\n{table}\n\n{note}"
        print(text)
        write_text(options.out, text)
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        sys.exit(f"benchmark: {error}")


def parse() -> argparse.Namespace:
    parser = program_parser(__spec__.name, __doc__, "--batch-size 16 128")
    out, choices = Path("reports/benchmark.md"), ("auto", "float32", "bfloat16")
    parser.add_argument("--out", type=Path, default=out, help=f"report to write (default: {out})")
    formats = "of matrix products (default: auto, bfloat16 where the hardware has it)"
    parser.add_argument("--precision", default="auto", choices=choices, help=formats)
    sizes = "images in a batch, each size measured (default: 128)"
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128], help=sizes)
    parser.add_argument("--rounds", type=int, default=7, help="repetitions (default: 7)")
    options = parser.parse_args()
    if min(*options.batch_size, options.rounds) < 1:
        parser.error("--batch-size and --rounds: wanted 1 or more")
    return options


def measure(
    image_size: int, digits: Digits, dtype: torch.dtype, batch_size: int, rounds: int
) -> pd.DataFrame:
    """Measure the task with images of this size and return the table of `derive`."""
    # On a CPU, the import warns that there is no CUDA runtime.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    from torch.utils.benchmark import Timer

    print(f"{image_size}x{image_size}, b = {batch_size}", file=sys.stderr)
    device = digits.images.device
    model = CapsNet(image_size=image_size).to(device)
    sizes = image_size, digits, dtype, batch_size
    training, composition = training_calls(model, *sizes)
    images = composition().images
    routing = batch_size, model.digit.weight.shape[0], device
    candidates = {
        "training": training,
        "convolve": partial(convolutions, model, images, dtype, convolve),
        "conv2d": partial(convolutions, model, images, dtype, conv2d),
        "composition": composition,
        "evaluation": partial(predict, model, images, dtype),
        "route": routing_pass(route, *routing),
        "route_reference": routing_pass(route_reference, *routing),
    }
    if device.type == "cuda":
        candidates["captured"] = training_calls(model, *sizes, captured=True)[0]
    with ProcessPoolExecutor(1, max_tasks_per_child=1) as pool:  # a new process for each call
        ways = (route, route_reference)
        memory = {way.__name__: pool.submit(extra_memory, way, *routing).result() for way in ways}

    def seconds(call: Callable[[], object]) -> float:
        timer = Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads())
        return timer.blocked_autorange(min_run_time=MIN_RUN_TIME).median

    timed = pd.DataFrame([pd.Series(candidates).map(seconds) for _ in range(rounds)])
    return derive(timed, memory, batch_size)


def training_calls(
    model: CapsNet,
    image_size: int,
    digits: Digits,
    dtype: torch.dtype,
    batch_size: int,
    captured: bool = False,
) -> tuple[Callable[[], None], Callable[[], Batch]]:
    """A training step of Adam, eager or captured, and the composition of a batch alone."""
    compose = partial(compose_batch, digits, image_size=image_size)
    draws = training_draws(digits, count(), seed=1, batch_size=batch_size, **TASKS[image_size])
    adam = {"lr": 1e-4}
    if digits.images.is_cuda:  # a captured step reads its learning rate from a tensor
        adam = {"lr": torch.tensor(1e-4, device=digits.images.device), "capturable": True}
    optimizer = torch.optim.Adam(model.parameters(), fused=True, **adam)
    settings = {"compose": compose, "compute_losses": compute_losses, "dtype": dtype}
    step = TrainingStep(model, optimizer, **settings)
    if captured:
        step.capture_after(WARM_UP_STEPS, print)
        for _ in range(WARM_UP_STEPS + 1):
            step(next(draws), 1)
    return lambda: step(next(draws), 1), lambda: compose(next(draws))


def compute_losses(prediction: Prediction, reconstructions: Tensor, batch: Batch) -> Losses:
    """The losses of the paper."""
    tensors = prediction.lengths, batch.targets, reconstructions, batch.sources
    return weighted_losses(*tensors, classification=margin_loss, reconstruction_weight=0.0005)


def convolutions(
    model: CapsNet, images: Tensor, dtype: torch.dtype, convolution: Callable[..., Tensor]
) -> tuple[Tensor, ...]:
    """Gradients of the weights and biases of both convolutions, with ReLU between them."""
    first, second = model.convolution, model.primary.convolution
    weights = first.weight, first.bias, second.weight, second.bias
    with hardware.autocast(images.device, dtype):
        features = relu(convolution(images, *weights[:2], stride=first.stride[0]), inplace=True)
        output = convolution(features, *weights[2:], stride=second.stride[0])
    return torch.autograd.grad(output, weights, output.detach())


def routing_pass(
    way: Callable[..., Tensor], batch_size: int, num_lower: int, device: torch.device
) -> Callable[[], tuple[Tensor, ...]]:
    """A forward and backward pass of `route` or `route_reference` on random inputs."""
    lower = squash(torch.randn(batch_size, num_lower, 8, device=device)).requires_grad_()
    weight = (0.1 * torch.randn(num_lower, 10, 8, 16, device=device)).requires_grad_()

    def call() -> tuple[Tensor, ...]:
        capsules = way(lower, weight, num_iterations=3)
        return torch.autograd.grad(capsules, (lower, weight), capsules.detach())

    return call


def extra_memory(way: Callable, batch_size: int, num_lower: int, device: torch.device) -> int:
    """Bytes at the peak of a routing pass beyond those before it."""
    call = routing_pass(way, batch_size, num_lower, device)
    call()  # loads the code
    before = hardware.restart_peak(device)
    call()
    return hardware.peak(device) - before


def derive(seconds: pd.DataFrame, memory: dict[str, int], batch_size: int) -> pd.DataFrame:
    """Seconds [rounds, candidates] and bytes -> speeds, memory and ratios [rounds, measures]."""
    found = {"speed": batch_size / seconds, "memory": memory}
    measures = {f"{name} (images/s)": found["speed"][name] for name in seconds}
    measures |= {f"memory of {name} (MiB)": size / 2**20 for name, size in memory.items()}
    for kind, one, other in TARGETS:
        measures[f"{kind} of {one} / {other}"] = found[kind][one] / found[kind][other]
    return pd.DataFrame(measures)


def compare(measured: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """One row of text a measure, one column a case: median and range. Then the targets."""
    table = pd.DataFrame({case: values.apply(cell) for case, values in measured.items()})
    table[["target", "met"]] = ""
    for (kind, one, other), least in TARGETS.items():
        name = f"{kind} of {one} / {other}"
        met = ["yes" if values[name].median() >= least else "no" for values in measured.values()]
        table.loc[name, ["target", "met"]] = f"at least {least}", ", ".join(met)
    return table.rename_axis("measure")


def cell(values: pd.Series) -> str:
    """The median with at least three digits, and the range if the values differ."""
    statistics = values.median(), values.min(), values.max()
    median, low, high = (f"{n:,.0f}" if n >= 100 else f"{n:#.3g}" for n in statistics)
    return median if low == high else f"{median} ({low} to {high})"


if __name__ == "__main__":
    main()
