"""The training loop: a generator of log records. It writes no file and knows no MLflow."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import cos, isfinite, pi
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from capsnet.data.batches import Batch
from capsnet.learning.device import autocast
from capsnet.learning.distributed import SINGLE_PROCESS, Distributed
from capsnet.losses import Losses
from capsnet.metrics import exact_match
from capsnet.nn.capsnet import Prediction

UNREAD_STEPS = 1000  # at most, before a device is asked for the losses
WARM_UP_STEPS = 10  # run eagerly before the step is captured: kernels compile, buffers appear
ComputeLosses = Callable[[Prediction, Tensor | None, Batch], Losses]
Examples = Callable[[bool], Iterable[Batch]]  # told whether it is the last interval


@dataclass
class Progress:
    """Where a training stands between two steps: what it takes to go on, beside the weights, the
    optimizer and torch's random numbers.
    """

    step: int = 0  # steps done
    examples: int = 0  # images shown
    seconds: float = 0.0  # since the start, all included
    interval_examples: int = 0  # images of the unfinished interval
    interval_seconds: float = 0.0  # its seconds of training, without validation
    loss_sums: Tensor | None = None  # its losses summed over images, float64 [3] on the device


class LogRecord(NamedTuple):
    """What happened since the log record before: losses are means over the interval's images."""

    step: int  # steps done
    examples: int  # images shown
    loss: float
    classification_loss: float
    reconstruction_loss: float  # sum of squared pixel differences, before its weight
    validation_error: float  # percent; NaN without validation digits
    training_error: float  # percent, on training digits shown as the validation digits are
    learning_rate: float
    images_per_second: float  # training alone, without the validation
    seconds: float  # since the start, all included


def fit(
    model: nn.Module,
    draws: Iterable[Tensor],
    *,
    compose: Callable[[Tensor], Batch],
    num_steps: int,
    num_intervals: int,
    optimizer: Optimizer,
    learning_rate: Callable[[int], float],
    compute_losses: ComputeLosses,
    validation_batches: Examples,
    train_eval_batches: Examples,
    dtype: torch.dtype = torch.float32,
    distributed: Distributed = SINGLE_PROCESS,
    progress: Progress | None = None,
    after_step: Callable[[Progress], None] = lambda progress: None,
    cuda_graph: bool = False,
    warn: Callable[[str], None] = lambda message: None,
) -> Iterator[LogRecord]:
    """Train and yield the log record of each of `num_intervals` intervals.

    `compose` makes a batch of each of the `draws`. `learning_rate` maps a step (from 0) to a rate;
    `dtype` bfloat16 means autocast. In training the decoder sees the capsules of the true labels.
    Both errors of an interval are measured at its end, on `validation_batches` and, of the digits
    trained on, `train_eval_batches`. Each of several processes takes its shard of every batch; all
    yield the same. `progress` is where to go on; the draws are then those that are left.
    `after_step` is called when a step and what belongs to it is done. `cuda_graph` replays the step
    as a CUDA graph, see `TrainingStep`; `warn` takes a line if that fails. Raises ValueError if a
    loss is not finite: on a CPU before the weights change, elsewhere within `UNREAD_STEPS`, for
    the loop does not wait for a device.
    """
    now = progress or Progress()
    ends = {round(num_steps * (n + 1) / num_intervals) for n in range(num_intervals)}
    error_on = partial(error_of, model, dtype=dtype, distributed=distributed)
    both = distributed.wrap_ddp(PredictAndDecode(model))
    step = TrainingStep(both, optimizer, compose, compute_losses, dtype, distributed, now)
    if cuda_graph:
        step.capture_after(WARM_UP_STEPS, warn)
    start = perf_counter() - now.seconds
    model.train()
    lap = perf_counter()
    for drawn in draws:
        rate = learning_rate(now.step)
        set_learning_rate(optimizer, rate)
        step(distributed.shard(drawn))
        now.step += 1
        now.examples += len(drawn)
        now.interval_examples += len(drawn)
        ended = now.step in ends
        if ended or now.step % UNREAD_STEPS == 0:
            means = check_finite(now.loss_sums / now.interval_examples, f"by step {now.step}")
        now.interval_seconds += perf_counter() - lap
        if ended:
            yield LogRecord(
                now.step,
                now.examples,
                *means,
                validation_error=error_on(validation_batches(now.step == num_steps)),
                training_error=error_on(train_eval_batches(now.step == num_steps)),
                learning_rate=rate,
                images_per_second=now.interval_examples / now.interval_seconds,
                seconds=perf_counter() - start,
            )
            now.interval_examples, now.interval_seconds = 0, 0.0
            now.loss_sums.zero_()
        now.seconds = perf_counter() - start
        after_step(now)
        lap = perf_counter()


class TrainingStep:
    """One step: compose the batch, forward, backward, update; losses are summed on the device.

    After `capture_after` the step is captured as a CUDA graph and replayed from then on: the host
    launches one graph instead of some 300 kernels. What changes from step to step lies in tensors
    that stay in place: the draws [b, k, 3], the sums of the losses and the optimizer's learning
    rate. All draws of a captured training have one shape.
    """

    def __init__(
        self,
        both: nn.Module,
        optimizer: Optimizer,
        compose: Callable[[Tensor], Batch],
        compute_losses: ComputeLosses,
        dtype: torch.dtype,
        distributed: Distributed,
        progress: Progress,
    ) -> None:
        self.both, self.optimizer, self.compose = both, optimizer, compose
        self.compute_losses, self.dtype, self.distributed = compute_losses, dtype, distributed
        self.progress = progress
        self.device = next(both.parameters()).device
        if progress.loss_sums is None:
            size = len(Losses._fields)
            progress.loss_sums = torch.zeros(size, dtype=torch.float64, device=self.device)
        else:
            progress.loss_sums = progress.loss_sums.to(self.device)
        self.drawn: Tensor | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.steps_to_capture = -1  # not to be captured

    def capture_after(self, num_steps: int, warn: Callable[[str], None]) -> None:
        """Capture the step after so many, on CUDA and in a single process; elsewhere do nothing. If
        the capture fails, `warn` gets one line and the training goes on without.
        """
        if self.device.type == "cuda" and self.distributed.size == 1:
            self.steps_to_capture, self.warn = num_steps, warn
            self.warm_up = torch.cuda.Stream(self.device)

    def __call__(self, drawn: Tensor) -> None:
        # Not blocking, or every step would wait until the device has done the one before it.
        drawn = drawn.pin_memory() if self.device.type == "cuda" else drawn
        if self.graph is None and self.steps_to_capture < 0:
            self.drawn = drawn.to(self.device, non_blocking=True)
            self._run()
            return
        if self.drawn is None:
            self.drawn = torch.empty_like(drawn, device=self.device)
        self.drawn.copy_(drawn, non_blocking=True)
        if self.graph is not None:
            self.graph.replay()
        elif self.steps_to_capture > 0:
            self.steps_to_capture -= 1
            with aside(self.warm_up):
                self._run()
        else:
            self._capture()

    def _run(self) -> None:
        batch = self.compose(self.drawn)
        losses = forward_losses(self.both, batch, self.compute_losses, self.dtype)
        values = torch.stack(losses).detach()
        if self.distributed.size > 1:
            values = self.distributed.sum(values) / self.distributed.size
        if self.device.type == "cpu":  # elsewhere looking would wait for the device
            check_finite(values, f"at step {self.progress.step + 1}")
        self.progress.loss_sums += values.double() * (len(batch) * self.distributed.size)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        self.optimizer.step()

    def _capture(self) -> None:
        """Capture the step, which runs nothing, and replay it; or else run it as before."""
        current, graph, failure = torch.cuda.current_stream(), torch.cuda.CUDAGraph(), None
        try:
            with torch.cuda.graph(graph):
                self._run()
        except (RuntimeError, ValueError) as error:  # ValueError: of a routing kernel
            failure = first_cause(error)
        if failure is None:
            self.graph = graph
            graph.replay()
            return
        del graph  # and with it the memory of the step
        torch.cuda.set_stream(current)  # a capture that fails at its end does not leave its own
        torch.cuda.empty_cache()
        self.warn(f"the step is not captured as a CUDA graph: {failure}")
        self.steps_to_capture = -1
        self._run()


def first_cause(error: BaseException) -> str:
    """The error that the others followed, in one line: a failed capture raises a second one."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}"


@contextmanager
def aside(stream: torch.cuda.Stream) -> Iterator[None]:
    """On another stream, as the steps before a capture are to run (PyTorch, "CUDA graphs")."""
    current = torch.cuda.current_stream()
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """In place where it is a tensor, as a captured step reads it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


class PredictAndDecode(nn.Module):
    """Both of a network in one call, for what takes part in it gets its gradient shared."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Prediction, Tensor | None]:
        """Each true digit is decoded from its own capsule."""
        prediction, decoder = self.model(images), self.model.decoder
        return prediction, decoder(prediction.capsules, labels) if decoder else None


def forward_losses(
    both: nn.Module, batch: Batch, compute_losses: ComputeLosses, dtype: torch.dtype
) -> Losses:
    """One forward pass of a PredictAndDecode, and its losses, weighed."""
    with autocast(batch.images.device, dtype):
        prediction, reconstructions = both(batch.images, batch.labels)
    return compute_losses(prediction, reconstructions, batch)


def check_finite(losses: Tensor, when: str) -> list[float]:
    """The values of Losses or of their means; raises ValueError if one is not finite."""
    values = losses.tolist()
    parts = [*zip(Losses._fields, values, strict=True)][1:]  # the total follows its parts
    for name, value in parts:
        if not isfinite(value):
            raise ValueError(
                f"{name} loss is {value} {when}: lower the budget's learning_rate.peak or "
                f"set optimizer.precision=float32"
            )
    return values


@torch.inference_mode()
def error_of(
    model: nn.Module,
    batches: Iterable[Batch],
    dtype: torch.dtype,
    distributed: Distributed = SINGLE_PROCESS,
) -> float:
    """Exact-match error in percent; NaN for no batches. Leaves the model in the mode it was in.

    Each of several processes evaluates some of the batches; all get the error of all.
    """
    was_training = model.training
    model.eval()
    counts = torch.zeros(2, dtype=torch.int64, device=next(model.parameters()).device)
    for batch in islice(batches, distributed.rank, None, distributed.size):
        with autocast(batch.images.device, dtype):
            prediction = model(batch.images)
        counts[0] += exact_match(prediction.lengths, batch.labels).sum()
        counts[1] += len(batch)
    model.train(was_training)
    right, total = distributed.sum(counts).tolist()
    return 100 * (1 - right / total) if total else float("nan")


def one_cycle(step: int, *, num_steps: int, peak: float, warmup: float, floor: float) -> float:
    """Linear up to `peak` over the first `warmup` share of the steps, then half a cosine down to
    `floor`.
    """
    rising = warmup * num_steps
    if step < rising:
        return max(floor, peak * (step + 1) / (rising + 1))
    progress = (step - rising) / max(1, num_steps - 1 - rising)
    return floor + (peak - floor) * (1 + cos(pi * min(1.0, progress))) / 2


def exponential(step: int, *, peak: float, factor: float, every: float, floor: float) -> float:
    """`peak` times `factor` every so many steps, never below `floor` (authors' code)."""
    return max(floor, peak * factor ** (step / every))
