"""The training loop: a generator of facts. It writes no file, prints nothing, knows no MLflow."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import cos, pi
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from capsnet.data.batches import Batch
from capsnet.device import autocast
from capsnet.losses import Losses
from capsnet.metrics import exact_match
from capsnet.nn.capsnet import Prediction
from capsnet.ranks import ALONE, Ranks

UNREAD_STEPS = 1000  # at most, before a device is asked for the losses
ComputeLosses = Callable[[Prediction, Tensor | None, Batch], Losses]
Examples = Callable[[bool], Iterable[Batch]]  # told whether it is the last interval


@dataclass
class Progress:
    """Where a training stands between two steps: what it takes to go on, beside the weights, the
    optimizer and torch's random numbers.
    """

    step: int = 0  # steps done
    examples: int = 0  # images shown in the intervals that are done
    seconds: float = 0.0  # since the start, all included
    interval_seconds: float = 0.0  # of training alone, in the interval that is not done
    sizes: list[int] = field(default_factory=list)  # images of each of its steps
    losses: list[Tensor] = field(default_factory=list)  # of each, left on the device


class Facts(NamedTuple):
    """What happened since the facts before: losses are means over the interval's images."""

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
    batches: Iterable[Batch],
    *,
    num_steps: int,
    num_intervals: int,
    optimizer: Optimizer,
    learning_rate: Callable[[int], float],
    compute_losses: ComputeLosses,
    validation_batches: Examples,
    seen_batches: Examples,
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
    progress: Progress | None = None,
    after_step: Callable[[Progress], None] = lambda progress: None,
) -> Iterator[Facts]:
    """Train on the batches and yield the facts of each of `num_intervals` intervals.

    `learning_rate` maps a step (from 0) to a rate; `dtype` bfloat16 means autocast. In training the
    decoder sees the capsules of the true labels. Both errors of an interval are measured at its
    end, on `validation_batches` and, of the digits trained on, `seen_batches`. Of several `ranks`
    each takes its share of all batches, and all yield the same. `progress` is where to go on; the
    batches are then those that are left. `after_step` is called when a step and what
    belongs to it is done. Raises ValueError if a loss is not finite: on a CPU, where looking costs
    nothing, before the weights change, elsewhere within `UNREAD_STEPS`, for the loop does not wait
    for a device.
    """
    now = progress or Progress()
    ends = {round(num_steps * (n + 1) / num_intervals) for n in range(num_intervals)}
    error_on = partial(error_of, model, dtype=dtype, ranks=ranks)
    both = ranks.together(PredictAndDecode(model))
    start = perf_counter() - now.seconds
    model.train()
    lap = perf_counter()
    for step, batch in enumerate(batches, now.step):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        losses = forward_losses(both, ranks.share(batch), compute_losses, dtype)
        now.losses.append(ranks.sum(torch.stack(losses).detach()) / ranks.size)
        now.sizes.append(len(batch))
        unread = 1 if batch.images.device.type == "cpu" else UNREAD_STEPS
        if (step + 1) % unread == 0:
            read_losses(now.losses[-unread:], step)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
        now.step = step + 1
        losses_of_steps = read_losses(now.losses, step) if now.step in ends else None
        now.interval_seconds += perf_counter() - lap
        if losses_of_steps is not None:
            now.examples += sum(now.sizes)
            yield Facts(
                now.step,
                now.examples,
                *np.average(losses_of_steps, axis=0, weights=now.sizes).tolist(),
                validation_error=error_on(validation_batches(now.step == num_steps)),
                training_error=error_on(seen_batches(now.step == num_steps)),
                learning_rate=learning_rate(step),
                images_per_second=sum(now.sizes) / now.interval_seconds,
                seconds=perf_counter() - start,
            )
            now.losses, now.sizes, now.interval_seconds = [], [], 0.0
        now.seconds = perf_counter() - start
        after_step(now)
        lap = perf_counter()


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


def read_losses(history: list[Tensor], last_step: int) -> np.ndarray:
    """Losses of the steps up to `last_step` as float64 [steps, parts of Losses], all finite."""
    values = torch.stack(history).double().cpu().numpy()
    bad_rows, bad_columns = np.nonzero(~np.isfinite(values[:, 1:]))  # the total follows its parts
    if len(bad_rows) > 0:
        row, column = bad_rows[0], 1 + bad_columns[0]
        raise ValueError(
            f"{Losses._fields[column]} loss is {values[row, column]} "
            f"at step {last_step - len(values) + row + 2}: "
            f"lower the budget's learning_rate.peak or set optimizer.precision=float32"
        )
    return values


@torch.inference_mode()
def error_of(
    model: nn.Module, batches: Iterable[Batch], dtype: torch.dtype, ranks: Ranks = ALONE
) -> float:
    """Exact-match error in percent; NaN for no batches. Leaves the model in the mode it was in.

    Of several `ranks` each looks at some of the batches, and all get the error of all.
    """
    was_training = model.training
    model.eval()
    counts = torch.zeros(2, dtype=torch.int64, device=next(model.parameters()).device)
    for batch in islice(batches, ranks.rank, None, ranks.size):
        with autocast(batch.images.device, dtype):
            prediction = model(batch.images)
        counts[0] += exact_match(prediction.lengths, batch.labels).sum()
        counts[1] += len(batch)
    model.train(was_training)
    right, total = ranks.sum(counts).tolist()
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
