"""How fast, how much memory, and against what: `python -m capsnet.benchmark`, minutes on two cores.

A training step is held against the floor: its two convolutions alone, by the library or by us,
whichever has the lower median; and its arithmetic against a plain matrix product. Routing is held
against `route_reference`, the composition of images against training on them. A shared machine's
speed swings within seconds, so a round times every contestant once, a number is the median over the
rounds, and a ratio the median of the ratios of times from one round. Nothing measured depends on
the values of pixels, only on how many digits there are to draw from, so without `--digits` they are
random bytes, as many as MNIST has.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pandas as pd
import torch
from torch.nn.functional import conv2d

from capsnet.benchmark.contestants import (
    Contestant,
    Subject,
    convolutions,
    extra_memory,
    product,
    profile,
    routing_call,
    time_in_rounds,
    training,
)
from capsnet.benchmark.results import SHARE, derive, write
from capsnet.data.archives import NUM_CLASSES
from capsnet.data.batches import compose_batch, training_draws
from capsnet.data.mnist import Digits, load_digits
from capsnet.files import replace_file
from capsnet.learning.device import (
    choose_dtype,
    describe,
    keep_freed_memory,
    peak,
    prepare,
    restart_peak,
)
from capsnet.learning.evaluation import predict
from capsnet.nn.capsnet import CapsNet
from capsnet.nn.convolution import convolve
from capsnet.nn.registry import multiply_adds
from capsnet.nn.routing import route, route_reference
from capsnet.provenance import commit

GROWTH_ROUNDS = 3  # at most
LARGEST_VOTES = 3 * 2**29  # bytes; the reference stores them, several times over


class Task(NamedTuple):
    """What a batch is drawn with, in the words of `capsnet.data.batches`."""

    num_digits: int
    image_size: int  # pixels
    max_shift: int  # pixels


class Settings(NamedTuple):
    """What the arguments ask for."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int
    rounds: int
    conv_channels: int
    primary_types: int


TASKS = {"28x28": Task(1, 28, 2), "36x36": Task(2, 36, 4)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark", description=__doc__.splitlines()[0])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--out", type=Path, default=Path("reports/benchmark"), help="folder")
    parser.add_argument("--digits", type=Path, help="folder of the MNIST archives; else random")
    parser.add_argument("--device", default=device)
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--batch-size", type=int, default=128, help="images")
    parser.add_argument("--rounds", type=int, default=7)
    words = "keep a profile of a training step below this share of a plain product's speed"
    parser.add_argument("--profile", type=float, default=0.0, metavar="SHARE", help=words)
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
        for name, values in measured.items():
            if median(values[SHARE]) < arguments.profile:
                text = profile(training(subjects[name], settings.batch_size), settings.device)
                replace_file(arguments.out / f"profile_{name}.txt", text.encode())
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
        device = prepare(torch.empty(0, device=arguments.device).device)
    except (RuntimeError, AssertionError) as error:  # as torch reports it
        raise ValueError(f"--device {arguments.device}: {error}") from None
    return Settings(device, choose_dtype(arguments.precision, device), **sizes)


def choose_digits(folder: Path | None) -> Digits:
    if folder is not None:
        return load_digits(folder, "train")
    images = torch.randint(256, (60_000, 28, 28), dtype=torch.uint8)
    return Digits(images, torch.randint(NUM_CLASSES, (60_000,)))


def sizes_of(task: Task, settings: Settings) -> dict[str, int]:
    sizes = {name: getattr(settings, name) for name in ("conv_channels", "primary_types")}
    return {"image_size": task.image_size, **sizes}


def make_subject(task: Task, settings: Settings, digits: Digits) -> Subject:
    model = CapsNet(**sizes_of(task, settings)).to(settings.device)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    sizes = task._asdict()
    compose = partial(compose_batch, digits, image_size=sizes.pop("image_size"))
    draw = partial(training_draws, digits, count(), seed=1, **sizes)
    return Subject(model, optimizer, draw, compose, settings.dtype)


def measure(name: str, subject: Subject, settings: Settings) -> dict[str, list[float]]:
    """Every measure of one task, by round."""
    print(f"{name}: {settings.rounds} rounds", file=sys.stderr)
    model, dtype, device = subject.model, subject.dtype, settings.device
    batches = map(subject.compose, subject.draw(batch_size=settings.batch_size))
    images = next(batches).images
    routing = settings.batch_size, model.digit.weight.shape, device
    plain, num_products = product(device, dtype)
    contestants = {
        "product": plain,
        "conv2d": Contestant(partial(convolutions, model, images, dtype, conv2d)),
        "convolve": Contestant(partial(convolutions, model, images, dtype, convolve)),
        "training": training(subject, settings.batch_size),
        "evaluation": Contestant(partial(predict, model, images, dtype)),
        "composition": Contestant(partial(next, batches)),
        "route": Contestant(routing_call(route, *routing)),
        "route_reference": Contestant(routing_call(route_reference, *routing)),
    }
    restart_peak(device)
    contestants["training"].call()
    memory = {"training": peak(device)}
    memory |= {way.__name__: extra_memory(way, *routing) for way in (route, route_reference)}
    seconds = time_in_rounds(contestants, settings.rounds)
    num_steps = 3 * settings.batch_size * multiply_adds("capsnet", sizes_of(TASKS[name], settings))
    work = {"product": num_products, "training": num_steps}
    return derive(seconds, memory, settings.batch_size, work)


def measure_growth(subjects: dict[str, Subject], settings: Settings) -> pd.DataFrame:
    """Seconds of calls of growing size, as `capsnet.benchmark.draw.growth` takes them.

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
        "the library multiplies by": multiplied_by(settings),
        "convolutions in": str(settings.dtype).removeprefix("torch."),
        "batch size": f"{settings.batch_size} images",
        "rounds": str(settings.rounds),
    }


def multiplied_by(settings: Settings) -> str:
    """What a CPU's library, oneDNN, says it does a plain product with: `amx` in the name means the
    matrix unit, `avx512_core_bf16` the vector unit. Told to a process of its own, as it starts.
    """
    if settings.device.type != "cpu":
        return "cuBLAS"
    dtype = str(settings.dtype)
    product = f"import torch; a = torch.ones(512, 512, dtype={dtype}); torch.mm(a, a)"
    told = subprocess.run(
        [sys.executable, "-c", product],
        env=os.environ | {"ONEDNN_VERBOSE": "1"},
        capture_output=True,
        text=True,
    ).stdout
    found = re.search(r"exec,cpu,matmul,([^,]+),", told)
    return found[1] if found else "something else than oneDNN"


if __name__ == "__main__":
    main()
