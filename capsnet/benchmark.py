"""How fast, how much memory, and against what: `python -m capsnet.benchmark`, minutes on two cores.

A training step is held against the floor: its two convolutions alone, by the library or by us,
whichever has the lower median. Routing is held against `route_reference`, the composition of images
against training on them. A shared machine's speed swings within seconds, so a round times every
contestant once, a number is the median over the rounds, and a ratio the median of the ratios of
times from one round. Nothing measured depends on the values of pixels, only on how many digits
there are to draw from, so without `--digits` they are random bytes, as many as MNIST has.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from functools import partial
from itertools import count, islice
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import conv2d, relu
from torch.utils.benchmark import Timer

from capsnet import figures
from capsnet.data.batches import Batch, training_batches
from capsnet.data.mnist import NUM_CLASSES, Digits, load_digits
from capsnet.device import autocast, choose_dtype, describe, keep_freed_memory, peak, restart_peak
from capsnet.evaluation import predict
from capsnet.losses import Losses, margin_loss, weighted_losses
from capsnet.nn.capsnet import CapsNet, Prediction
from capsnet.nn.convolution import convolve
from capsnet.nn.routing import route, route_reference, squash
from capsnet.training import Facts, fit

RUN_TIME = 0.2  # seconds that a contestant is timed for in a round, one call at least
GROWTH_ROUNDS = 3  # at most
GPU_STEPS = 10
LARGEST_VOTES = 3 * 2**29  # bytes; the reference stores them, several times over
MIB = 2**20


class Task(NamedTuple):
    """What a batch is drawn with, in the words of `training_batches`."""

    num_digits: int
    image_size: int  # pixels
    max_shift: int  # pixels


class Target(NamedTuple):
    """A ratio that is wanted at least or at most, of these tasks."""

    sign: str
    bound: float
    tasks: tuple[str, ...] = ("28x28", "36x36")

    def met(self, ratio: float) -> bool:
        return ratio >= self.bound if self.sign == "at least" else ratio <= self.bound


class Measure(NamedTuple):
    """A row of the table; a ratio has the unit "x"."""

    unit: str
    target: Target | None = None


class Row(NamedTuple):
    """A measure as it came out: of each task the median and the values by round."""

    unit: str
    median: dict[str, float]
    rounds: dict[str, list[float]]
    target: str
    met: dict[str, bool]


class Settings(NamedTuple):
    """What the arguments ask for."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int
    rounds: int
    conv_channels: int
    primary_types: int


class Subject(NamedTuple):
    """A network in training; `draw(batch_size=...)` gives an endless row of batches."""

    model: CapsNet
    optimizer: torch.optim.Adam
    draw: Callable[..., Iterator[Batch]]
    dtype: torch.dtype


class Contestant(NamedTuple):
    """A call to time, and how many batches it works through."""

    call: Callable[[], object]
    num_batches: int = 1


TASKS = {"28x28": Task(1, 28, 2), "36x36": Task(2, 36, 4)}
MEASURES = {
    "convolution floor, library's conv2d": Measure("images/s"),
    "convolution floor, our convolve": Measure("images/s"),
    "training step": Measure("images/s"),
    "training speed / floor": Measure("x", Target("at least", 0.8)),
    "routing, route": Measure("ms"),
    "routing, route_reference": Measure("ms"),
    "speed of route / of route_reference": Measure("x", Target("at least", 5)),
    "routing, extra memory of route": Measure("MiB"),
    "routing, extra memory of route_reference": Measure("MiB"),
    "memory of route / of route_reference": Measure("x", Target("at most", 0.1)),
    "composition": Measure("images/s"),
    "composition / training speed": Measure("x", Target("at least", 20, ("36x36",))),
    "evaluation": Measure("images/s"),
}
NOTE = """Medians over the rounds; in brackets the least and the most of a round's ratios. The floor
is both convolutions, forward and backward, by the way with the better median. Routing is forward
and backward, 3 iterations, float32. On 36x36 an image is a pair of digits. Targets are set for
batches of 128 on two CPU cores with AVX512-BF16; elsewhere they only compare."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__.splitlines()[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--out", type=Path, default=Path("reports/benchmark"), help="folder")
    parser.add_argument("--digits", type=Path, help="folder of the MNIST archives; else random")
    parser.add_argument("--device", default=device)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--batch-size", type=int, default=128, help="images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--conv-channels", type=int, default=256)
    parser.add_argument("--primary-types", type=int, default=32)
    arguments = parser.parse_args(argv)
    try:
        settings = check(arguments)
        keep_freed_memory()  # as the stages do
        digits = choose_digits(arguments.digits).to(settings.device)
        arguments.out.mkdir(parents=True, exist_ok=True)  # stop here, not after all is measured
        about = surroundings(settings, sys.argv[1:] if argv is None else argv)
        subjects = {name: make_subject(task, settings, digits) for name, task in TASKS.items()}
        measured = {name: measure(name, subjects[name], settings) for name in subjects}
        write(arguments.out, about, measured, measure_growth(subjects, settings))
    except BrokenProcessPool:
        parser.exit(1, "benchmark: no memory for the routing: use a smaller --batch-size\n")
    except (ValueError, OSError, torch.OutOfMemoryError) as error:
        parser.exit(1, f"benchmark: {str(error).splitlines()[0]}\n")


def check(arguments: argparse.Namespace) -> Settings:
    """Raises ValueError for sizes below 1 and a device that is not there."""
    sizes = {name: getattr(arguments, name) for name in Settings._fields[2:]}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"--{name.replace('_', '-')} is {size}, wanted 1 or more")
    try:
        device = torch.empty(0, device=arguments.device).device
    except (RuntimeError, AssertionError) as error:  # as torch reports it
        raise ValueError(f"--device {arguments.device}: {error}") from None
    return Settings(device, choose_dtype(arguments.precision, device), **sizes)


def choose_digits(folder: Path | None) -> Digits:
    if folder is not None:
        return load_digits(folder, "train")
    images = torch.randint(256, (60_000, 28, 28), dtype=torch.uint8)
    return Digits(images, torch.randint(NUM_CLASSES, (60_000,)))


def make_subject(task: Task, settings: Settings, digits: Digits) -> Subject:
    model = CapsNet(
        image_size=task.image_size,
        conv_channels=settings.conv_channels,
        primary_types=settings.primary_types,
    ).to(settings.device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    draw = partial(training_batches, digits, count(), seed=1, **task._asdict())
    return Subject(model, optimizer, draw, settings.dtype)


def measure(name: str, subject: Subject, settings: Settings) -> dict[str, list[float]]:
    """Every measure of one task, by round."""
    print(f"{name}: {settings.rounds} rounds", file=sys.stderr)
    model, dtype, device = subject.model, subject.dtype, settings.device
    batches = subject.draw(batch_size=settings.batch_size)
    images = next(batches).images
    routing = settings.batch_size, model.digit.weight.shape, device
    contestants = {
        "conv2d": Contestant(partial(convolutions, model, images, dtype, conv2d)),
        "convolve": Contestant(partial(convolutions, model, images, dtype, convolve)),
        "training": training(subject, settings.batch_size),
        "evaluation": Contestant(partial(predict, model, images, dtype)),
        "composition": Contestant(partial(next, batches)),
        "route": Contestant(routing_call(route, *routing)),
        "route_reference": Contestant(routing_call(route_reference, *routing)),
    }
    memory = {way.__name__: extra_memory(way, *routing) for way in (route, route_reference)}
    return derive(time_in_rounds(contestants, settings.rounds), memory, settings.batch_size)


def derive(
    seconds: dict[str, list[float]], memory: dict[str, float], batch_size: int
) -> dict[str, list[float]]:
    """Seconds a batch by round and bytes -> the values of MEASURES, by round."""
    speed = {name: [batch_size / each for each in times] for name, times in seconds.items()}
    floor = max("conv2d", "convolve", key=lambda name: median(speed[name]))
    routing = [speed["route"], speed["route_reference"]]
    values = [
        speed["conv2d"],
        speed["convolve"],
        speed["training"],
        ratios(speed["training"], speed[floor]),
        [1000 * each for each in seconds["route"]],
        [1000 * each for each in seconds["route_reference"]],
        ratios(*routing),
        [memory["route"] / MIB],
        [memory["route_reference"] / MIB],
        [memory["route"] / memory["route_reference"]],
        speed["composition"],
        ratios(speed["composition"], speed["training"]),
        speed["evaluation"],
    ]
    return dict(zip(MEASURES, values, strict=True))


def ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(first, second, strict=True)]


def time_in_rounds(
    contestants: dict[Hashable, Contestant], rounds: int
) -> dict[Hashable, list[float]]:
    """Seconds a batch by round, each time after a call to warm up; every other round backwards."""
    threads = torch.get_num_threads()  # the Timer's default is one
    seconds = {name: [] for name in contestants}
    for number in range(rounds):
        for name in list(contestants)[:: -1 if number % 2 else 1]:
            call, num_batches = contestants[name]
            timer = Timer("call()", globals={"call": call}, num_threads=threads)
            measured = timer.blocked_autorange(min_run_time=RUN_TIME)
            seconds[name].append(measured.median / num_batches)
    return seconds


def convolutions(
    model: CapsNet, images: Tensor, dtype: torch.dtype, convolution: Callable[..., Tensor]
) -> tuple[Tensor, ...]:
    """The gradients of both layers' weights and biases, with ReLU between the convolutions."""
    layers = model.convolution, model.primary.convolution
    parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
    with autocast(images.device, dtype):
        features = relu(convolution(images, *parameters[:2], stride=layers[0].stride[0]), True)
        output = convolution(features, *parameters[2:], stride=layers[1].stride[0])
    return torch.autograd.grad(output, parameters, output.detach())


def training(subject: Subject, batch_size: int) -> Contestant:
    """Steps of the training loop itself, with all it does from drawing the batch on.

    The loop waits for a GPU only where an interval ends, so there a call is several steps.
    """
    num_steps = 1 if subject.model.digit.weight.device.type == "cpu" else GPU_STEPS
    batches = subject.draw(batch_size=batch_size)
    return Contestant(partial(train, subject, batches, num_steps), num_steps)


def train(subject: Subject, batches: Iterator[Batch], num_steps: int) -> Facts:
    facts = fit(
        subject.model,
        islice(batches, num_steps),
        num_steps=num_steps,
        num_intervals=1,
        optimizer=subject.optimizer,
        learning_rate=lambda step: 0.0001,
        compute_losses=compute_losses,
        validation_batches=list,
        dtype=subject.dtype,
    )
    return next(facts)


def compute_losses(prediction: Prediction, reconstructions: Tensor, batch: Batch) -> Losses:
    images = prediction.lengths, batch.targets, reconstructions, batch.sources
    return weighted_losses(*images, classification=margin_loss, reconstruction_weight=0.0005)


def routing_call(
    way: Callable[..., Tensor],
    batch_size: int,
    shape_ijpd: torch.Size,
    device: torch.device,
    num_iterations: int = 3,
) -> Callable[[], tuple[Tensor, ...]]:
    """Forward and backward of one way to route, in float32, on inputs that are made here."""
    lower = squash(torch.randn(batch_size, shape_ijpd[0], shape_ijpd[2], device=device))
    weight = 0.1 * torch.randn(shape_ijpd, device=device)
    inputs = lower.requires_grad_(), weight.requires_grad_()
    return partial(route_and_back, way, *inputs, num_iterations)


def route_and_back(way, lower: Tensor, weight: Tensor, num_iterations: int) -> tuple[Tensor, ...]:
    capsules = way(lower, weight, num_iterations=num_iterations)
    return torch.autograd.grad(capsules, (lower, weight), capsules.detach())


def extra_memory(way: Callable, *routing) -> float:
    """Bytes at the peak of one call beyond those held before it; on a CPU of a new process."""
    if routing[-1].type != "cpu":
        return peak_growth(way, *routing)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(peak_growth, way, *routing).result()


def peak_growth(way: Callable, batch_size: int, shape: torch.Size, device: torch.device) -> float:
    """Warmed up with a few images, so that loading code is not counted (few have code of their own:
    more than 16 use that of many).
    """
    call = routing_call(way, batch_size, shape, device)
    routing_call(way, min(batch_size, 17), shape, device)()
    before = restart_peak(device)
    call()
    return peak(device) - before


def measure_growth(subjects: dict[str, Subject], settings: Settings) -> pd.DataFrame:
    """Seconds of calls of growing size, as `capsnet.figures.growth` takes them.

    With the paper's sizes: 8 to 256 images; 288 to 4,608 lower capsules or 1 to 5 iterations with
    32 images; 1,152 lower capsules and 3 iterations where another grows.
    """
    rounds, places, types = min(settings.rounds, GROWTH_ROUNDS), 36, settings.primary_types
    print(f"growth: {rounds} rounds", file=sys.stderr)
    batch_sizes = sorted({max(1, settings.batch_size * 2**n // 16) for n in range(6)})
    few = max(1, settings.batch_size // 4)
    points = [("images", n, n, places * types, 3) for n in batch_sizes]
    points += [("lower capsules", n * types, few, n * types, 3) for n in (9, 18, 36, 72, 100, 144)]
    points += [("iterations", n, few, places * types, n) for n in range(1, 6)]
    contestants = {}
    for growing, size, batch_size, num_lower, num_iterations in points:
        shape = torch.Size((num_lower, NUM_CLASSES, 8, 16))
        votes = 4 * batch_size * num_lower * NUM_CLASSES * 16  # bytes
        for way in (route, route_reference) if votes <= LARGEST_VOTES else (route,):
            call = routing_call(way, batch_size, shape, settings.device, num_iterations)
            contestants[growing, way.__name__, size, batch_size] = Contestant(call)
    for name, subject in subjects.items():
        for size in batch_sizes:
            contestants["training", name, size, size] = training(subject, size)
    seconds = time_in_rounds(contestants, rounds)
    rows = [(*point, median(times)) for point, times in seconds.items()]
    return pd.DataFrame(rows, columns=["growing", "contestant", "size", "batch_size", "seconds"])


def surroundings(settings: Settings, argv: Sequence[str]) -> dict[str, str]:
    """What a number means nothing without."""
    return {
        "command": shlex.join(["python", "-m", "capsnet.benchmark", *argv]),
        "commit": commit(),
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "hardware": describe(settings.device),
        "torch": torch.__version__,
        "convolutions in": str(settings.dtype).removeprefix("torch."),
        "batch size": f"{settings.batch_size} images",
        "rounds": str(settings.rounds),
    }


def commit() -> str:
    """Of the package; "+ changes" if its files are not as committed."""
    here, quiet = Path(__file__).parent, subprocess.DEVNULL
    git = partial(subprocess.check_output, cwd=here, text=True, stderr=quiet)
    try:
        head = git(["git", "rev-parse", "--short", "HEAD"]).strip()
        return head + (" + changes" if git(["git", "status", "--porcelain", "."]) else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write(
    folder: Path, about: dict[str, str], measured: dict[str, dict], growth: pd.DataFrame
) -> None:
    """Four files, each written aside and then renamed, so that none is ever half; and print."""
    title = "How time grows with images, capsules and iterations"
    text = "\n\n".join([markdown(about, measured), NOTE, f"![{title}](growth.png)"]) + "\n"
    raw = about | {"measures": {name: row_of(name, measured)._asdict() for name in MEASURES}}
    contents = {
        "benchmark.md": text,
        "benchmark.json": json.dumps(raw, indent=2) + "\n",
        "growth.csv": growth.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
    }
    for name, content in contents.items():
        aside = folder / f".{name}.{os.getpid()}"
        aside.write_text(content, encoding="utf-8")
        aside.replace(folder / name)
    figures.growth(growth, folder / "growth.png", title=title)
    print(text)


def row_of(name: str, measured: dict[str, dict]) -> Row:
    unit, target = MEASURES[name]
    rounds = {task: values[name] for task, values in measured.items()}
    medians = {task: median(values) for task, values in rounds.items()}
    met = {task: target.met(medians[task]) for task in target.tasks} if target else {}
    wanted = f"{target.sign} {target.bound:g}" if target else ""
    return Row(unit, medians, rounds, wanted, met)


def markdown(about: dict[str, str], measured: dict[str, dict]) -> str:
    lines = ["# Benchmark", "", *(f"- {name}: `{text}`" for name, text in about.items()), ""]
    lines += [f"| measure | unit | {' | '.join(measured)} | target | met |"]
    lines += ["|" + " --- |" * (4 + len(measured))]
    for name in MEASURES:
        row = row_of(name, measured)
        cells = [cell(row.unit, values) for values in row.rounds.values()]
        met = ", ".join(f"{task} {'yes' if met else 'no'}" for task, met in row.met.items())
        lines.append(f"| {' | '.join([name, row.unit, *cells, row.target, met])} |")
    return "\n".join(lines)


def cell(unit: str, values: Sequence[float]) -> str:
    """The median, three digits at least; of a ratio also the least and the most of a round."""
    shown = [
        f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"
        for value in (median(values), min(values), max(values))
    ]
    spread = unit == "x" and len(values) > 1
    return "{} ({} to {})".format(*shown) if spread else shown[0]


if __name__ == "__main__":
    main()
