"""The training loop: a generator of facts. It writes no file, prints nothing, knows no MLflow."""

from collections.abc import Callable, Iterable, Iterator
from math import cos, pi
from time import perf_counter
from typing import NamedTuple

import torch
from torch import nn
from torch.optim import Optimizer

from capsnet.data.batches import Batch
from capsnet.losses import Losses
from capsnet.metrics import error_percent, exact_match
from capsnet.nn.capsnet import Prediction
from capsnet.precision import autocast

ComputeLosses = Callable[[Prediction, torch.Tensor | None, Batch], Losses]


class Facts(NamedTuple):
    """What happened since the facts before: losses are means over the interval's images."""

    step: int  # steps done
    examples: int  # images shown
    loss: float
    classification_loss: float
    reconstruction_loss: float  # sum of squared pixel differences, before its weight
    validation_error: float  # percent; NaN without validation digits
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
    validation_batches: Callable[[], Iterable[Batch]],
    dtype: torch.dtype = torch.float32,
) -> Iterator[Facts]:
    """Train on the batches and yield the facts of each of `num_intervals` intervals.

    `learning_rate` maps a step (from 0) to a rate; `dtype` bfloat16 means autocast. In training the
    decoder sees the capsules of the true labels. Raises ValueError, before the weights change, if a
    loss is not finite.
    """
    ends = {round(num_steps * (n + 1) / num_intervals) for n in range(num_intervals)}
    start = interval_start = perf_counter()
    sums, examples, interval_examples = [0.0, 0.0, 0.0], 0, 0
    model.train()
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step)
        losses = forward_losses(model, batch, compute_losses, dtype)
        _require_finite(losses, step)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        optimizer.step()
        interval_examples += len(batch)
        sums = [total + part.item() * len(batch) for total, part in zip(sums, losses, strict=True)]
        if step + 1 in ends:
            training_seconds = perf_counter() - interval_start
            examples += interval_examples
            error = validation_error(model, validation_batches(), dtype)
            yield Facts(
                step + 1,
                examples,
                *(total / interval_examples for total in sums),
                validation_error=error,
                learning_rate=learning_rate(step),
                images_per_second=interval_examples / training_seconds,
                seconds=perf_counter() - start,
            )
            sums, interval_examples, interval_start = [0.0, 0.0, 0.0], 0, perf_counter()


def forward_losses(
    model: nn.Module, batch: Batch, compute_losses: ComputeLosses, dtype: torch.dtype
) -> Losses:
    """One forward pass: predict, decode each true digit from its own capsule, weigh the losses."""
    with autocast(batch.images.device, dtype):
        prediction = model(batch.images)
        reconstructions = (
            model.decoder(prediction.capsules, batch.labels) if model.decoder else None
        )
    return compute_losses(prediction, reconstructions, batch)


@torch.inference_mode()
def validation_error(model: nn.Module, batches: Iterable[Batch], dtype: torch.dtype) -> float:
    """Exact-match error in percent; NaN for no batches. Leaves the model in the mode it was in."""
    was_training = model.training
    model.eval()
    correct = []
    for batch in batches:
        with autocast(batch.images.device, dtype):
            prediction = model(batch.images)
        correct.append(exact_match(prediction.lengths, batch.labels))
    model.train(was_training)
    return error_percent(torch.cat(correct)) if correct else float("nan")


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


def _require_finite(losses: Losses, step: int) -> None:
    for part in ("classification", "reconstruction"):
        value = getattr(losses, part)
        if not torch.isfinite(value):
            raise ValueError(
                f"{part} loss is {value.item()} at step {step + 1}: "
                f"lower the budget's learning_rate.peak or set optimizer.precision=float32"
            )
