"""What is timed, and how: in rounds, each contestant once a round."""

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import relu
from torch.profiler import ProfilerActivity
from torch.utils.benchmark import Timer

from capsnet.data.batches import Batch
from capsnet.learning.device import autocast, peak, restart_peak
from capsnet.learning.training import Facts, fit
from capsnet.losses import Losses, margin_loss, weighted_losses
from capsnet.nn.capsnet import CapsNet, Prediction
from capsnet.nn.routing import squash

RUN_TIME = 0.2  # seconds that a contestant is timed for in a round, one call at least
GPU_STEPS = 10
PRODUCT_SIZE = {"cpu": 2048, "cuda": 8192}  # rows and columns: large enough for full speed


class Contestant(NamedTuple):
    """A call to time, and how many batches it works through."""

    call: Callable[[], object]
    num_batches: int = 1


class Subject(NamedTuple):
    """A network in training; `draw(batch_size=...)` gives endlessly what `compose` takes."""

    model: CapsNet
    optimizer: torch.optim.Adam
    draw: Callable[..., Iterator[Tensor]]
    compose: Callable[[Tensor], Batch]
    dtype: torch.dtype


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


def product(device: torch.device, dtype: torch.dtype) -> tuple[Contestant, int]:
    """One plain matrix product, as fast as the library makes it, and its multiply-adds."""
    size = PRODUCT_SIZE.get(device.type, 2048)
    factors = torch.randn(2, size, size, device=device).to(dtype)
    return Contestant(partial(torch.mm, *factors)), size**3


def training(subject: Subject, batch_size: int) -> Contestant:
    """Steps of the training loop itself, with all it does from drawing the batch on.

    The loop waits for a GPU only where an interval ends, so there a call is several steps.
    """
    num_steps = 1 if subject.model.digit.weight.device.type == "cpu" else GPU_STEPS
    draws = subject.draw(batch_size=batch_size)
    return Contestant(partial(train, subject, draws, num_steps), num_steps)


def train(subject: Subject, draws: Iterator[Tensor], num_steps: int) -> Facts:
    facts = fit(
        subject.model,
        islice(draws, num_steps),
        compose=subject.compose,
        num_steps=num_steps,
        num_intervals=1,
        optimizer=subject.optimizer,
        learning_rate=lambda step: 0.0001,
        compute_losses=compute_losses,
        validation_batches=lambda last: [],
        seen_batches=lambda last: [],
        dtype=subject.dtype,
    )
    return next(facts)


def profile(contestant: Contestant, device: torch.device) -> str:
    """Which operations and kernels take the time of one call, the longest first."""
    activities = [ProfilerActivity.CPU]
    order = "self_cpu_time_total"
    if device.type == "cuda":
        activities, order = [*activities, ProfilerActivity.CUDA], "self_device_time_total"
    contestant.call()
    with torch.profiler.profile(activities=activities, acc_events=True) as profiler:
        contestant.call()
    return profiler.key_averages().table(sort_by=order, row_limit=40, max_name_column_width=80)


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
