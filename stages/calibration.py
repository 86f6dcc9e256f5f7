"""The part of `evaluate` that asks whether lengths are probabilities and counts digits.

Counted is by one threshold, midway between the margins of the loss and chosen before any result, on
the canvas of the task: nothing, the ink of a digit in shuffled tiles, one digit, two digits.
"""

from functools import partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from capsnet import metrics
from capsnet.data.batches import evaluation_batches, seeded_generator
from capsnet.data.mnist import NUM_CLASSES, Digits
from capsnet.evaluation import Outcome, predict
from capsnet.figures import calibration as figures
from capsnet.studies.calibration import (
    THRESHOLD,
    count_digits,
    expected_calibration_error,
    probabilities,
    reliability,
    scramble,
)
from stages.output import write_csv

TILE = 4  # pixels; divides every canvas
THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
COUNTS = ("0", "1", "2", "more")


def measure_calibration(
    outcome: Outcome, *, capsules: bool, table: Path
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Reliability of the digits that were predicted and of all ten, and both expected errors."""
    num_digits = outcome.labels.shape[1]
    lengths = outcome.lengths if capsules else probabilities(outcome.lengths, num_digits)
    there = metrics.one_hot(outcome.labels, NUM_CLASSES)
    predicted = outcome.predictions
    bins = {
        "predicted digits": reliability(
            lengths.gather(1, predicted).flatten(), there.gather(1, predicted).flatten()
        ),
        "all ten digits": reliability(lengths.flatten(), there.flatten()),
    }
    rows = []
    for group, one in bins.items():
        for low, high, examples, right, confidence in zip(*(f.tolist() for f in one), strict=True):
            interval = metrics.wilson_interval(right, examples)
            found = {"there": interval.value, "there_low": interval.low}
            found["there_high"] = interval.high
            place = {"group": group, "low": low, "high": high, "examples": examples}
            rows.append({**place, "length": confidence, **found})
    frame = pd.DataFrame(rows)
    write_csv(table, frame)
    errors = {group: expected_calibration_error(one) for group, one in bins.items()}
    return frame, {
        "calibration_error": errors["predicted digits"],
        "calibration_error_all": errors["all ten digits"],
    }


@torch.inference_mode()
def measure_counts(
    model: nn.Module,
    digits: Digits,
    *,
    dtype: torch.dtype,
    seed: int,
    num_examples: int,
    batch_size: int,
    num_digits: int,
    image_size: int,
    max_shift: int,
    table: Path,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """How often the network sees as many digits as there are, by threshold: table and headlines."""
    draw = partial(
        evaluation_batches,
        digits,
        seed=seed,
        num_examples=num_examples,
        batch_size=batch_size,
        image_size=image_size,
        max_shift=max_shift,
    )
    generator = seeded_generator("scramble", seed)
    one = [batch.images for batch in draw(num_digits=1)]
    two = [batch.images for batch in draw(num_digits=2)]
    shown = {
        "nothing": (0, [torch.zeros_like(one[0][:1])]),
        "a digit in shuffled tiles": (
            0,
            [scramble(images, tile=TILE, generator=generator) for images in one],
        ),
        "one digit": (1, one),
        "two digits": (2, two),
    }
    rows = []
    for name, (truth, batches) in shown.items():
        predictions = [predict(model, images, dtype) for images in batches]
        scores = torch.cat([prediction.lengths for prediction in predictions]).cpu()
        capsules = predictions[0].capsules is not None
        lengths = scores if capsules else probabilities(scores, num_digits)
        for threshold in THRESHOLDS:
            rows.append({"shown": name, "digits": truth, **_counted(lengths, threshold, truth)})
    frame = pd.DataFrame(rows)
    write_csv(table, frame)
    chosen = frame[frame["threshold"] == THRESHOLD].set_index("shown")["right"]
    names = ("nothing", "shuffled", "one_digit", "two_digits")
    found = {short: float(chosen[name]) for short, name in zip(names, shown, strict=True)}
    return frame, {"count_right": found}


def _counted(lengths: Tensor, threshold: float, truth: int) -> dict[str, object]:
    found = count_digits(lengths, threshold).clamp_(max=len(COUNTS) - 1)
    times = found.bincount(minlength=len(COUNTS)).tolist()
    counts = {f"found_{name}": count for name, count in zip(COUNTS, times, strict=True)}
    right = 100 * counts[f"found_{truth}"] / len(lengths)
    return {"threshold": threshold, "examples": len(lengths), "right": right, **counts}


def draw_calibration(
    bins: pd.DataFrame,
    counts: pd.DataFrame,
    *,
    error: float,
    num_digits: int,
    folder: Path,
    name: str,
) -> None:
    figures.calibration(
        bins,
        counts,
        folder / "calibration.png",
        title=f"{name}: are lengths probabilities, and how many digits are seen?",
        error=error,
        threshold=THRESHOLD,
        trained_on="one digit" if num_digits == 1 else "two digits",
    )
