"""Stage `perturb@<run>`: what do the numbers of a digit capsule mean? (paper, section 5.1 and
Figure 4)

One number of the right capsule is changed from -range to +range, the other capsules stay zero, and
the decoder draws what the changed capsule stands for. The shape of what it draws is measured for
many test examples of each digit (`capsnet.studies.effects`); drawn is the one that changes most
like the
mean.
"""

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from capsnet import figures
from capsnet.checkpoint import load
from capsnet.data.batches import evaluation_batches
from capsnet.data.mnist import NUM_CLASSES, load_digits
from capsnet.device import choose_dtype
from capsnet.evaluation import decode, predict
from capsnet.figures.effects import effects as draw_effects
from capsnet.metrics import found
from capsnet.metrics import predict as classes
from capsnet.params import Params, load_params, params_of, task_of, used_parameters
from capsnet.studies.effects import Slopes, clearest, describe, effect_table, fit_slopes, summarize
from capsnet.studies.morphometry import measure
from capsnet.tracking import track
from stages.command import run
from stages.output import write_csv, write_json

NUM_MEASURED = 5  # of the values of a sweep: they give a slope as well as all, in half the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four archives")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to perturb")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics of `evaluate`, JSON")
    parser.add_argument("--effects", type=Path, required=True, help="table to write, CSV")
    parser.add_argument("--summary", type=Path, required=True, help="metrics to write, JSON")
    parser.add_argument("--figures", type=Path, required=True, help="folder of figures to write")
    arguments = parser.parse_args()
    params = params_of(load_params(), arguments.run)
    with track(
        "perturb",
        arguments.run,
        parameters=used_parameters(params, arguments.run),
        checkpoint=arguments.model,
    ) as tracker:
        perturb(params, arguments, tracker)


def perturb(params: Params, arguments: argparse.Namespace, tracker) -> None:
    name, folder = arguments.run, arguments.figures
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load(arguments.model).to(device)
    effects = effect_table({}, {}, params.perturb.range)
    if model.decoder is None:
        figures.notice(  # neither git nor dvc plots takes an empty folder
            folder / "overview.png",
            title=f"{name}: nothing to perturb",
            note="This network has no decoder, so there is no capsule to draw.",
        )
        print(f"{name}: no decoder, nothing to perturb")
    else:
        capsules = right_capsules(model, params, arguments)
        values = sweep_values(params.perturb.range, params.perturb.step)
        sweeps = {digit: measure_sweep(model, capsules[digit], digit, values) for digit in capsules}
        effects = effect_table(
            {digit: measured.slopes for digit, measured in sweeps.items()},
            {digit: measured.ink_difference for digit, measured in sweeps.items()},
            params.perturb.range,
        )
        error = json.loads(arguments.metrics.read_text())[name]["error"]
        title = f"{name} (test error {error:.2f} %)"
        draw_grids(model, capsules, sweeps, effects, values, folder)
        draw_overview(model, capsules, sweeps, effects, values, folder, title)
        draw_heat_map(effects, folder, title)
        print(f"{name}: {told(effects)}, figures in {folder}")
    summary = summarize(effects)
    write_csv(arguments.effects, effects)
    write_json(arguments.summary, {name: {"perturbation": summary}})
    tracker.metrics({"perturbation": summary})
    tracker.artifact(arguments.effects)
    tracker.artifact(arguments.summary)
    tracker.artifact(folder, folder="perturbation")


def told(effects: pd.DataFrame) -> str:
    """How many dimensions have a name, in words."""
    summary = summarize(effects)
    return f"{summary['named']} of {summary['dimensions']} dimensions change the shape"


def sweep_values(limit: float, step: float) -> Tensor:
    """-limit ... 0 ... +limit in steps; the middle is exactly zero: the unperturbed capsule."""
    half = round(limit / step)
    return torch.arange(-half, half + 1) * (limit / half)


def right_capsules(
    model: nn.Module, params: Params, arguments: argparse.Namespace
) -> dict[int, Tensor]:
    """For each digit, its capsule [n, d] in the first test examples in which it was found.

    Where a poor network found too few, examples in which it missed the digit make up the number.
    """
    task = task_of(params, arguments.run)
    digits = load_digits(arguments.digits, "test").to(next(model.parameters()).device)
    batches = evaluation_batches(
        digits,
        seed=params.evaluate.seed,
        num_examples=task.test_examples or len(digits),
        batch_size=params.evaluate.batch_size,
        num_digits=task.num_digits,
        image_size=task.image_size,
        max_shift=task.test_shift,
    )
    dtype = choose_dtype(params.optimizer.precision, digits.images.device)
    wanted = params.chosen_budget.perturb_examples
    hits: dict[int, list[Tensor]] = {digit: [] for digit in range(NUM_CLASSES)}
    misses: dict[int, list[Tensor]] = {digit: [] for digit in range(NUM_CLASSES)}
    for batch in batches:
        prediction = predict(model, batch.images, dtype)
        right = found(classes(prediction.lengths, task.num_digits), batch.labels)
        for (example, place), hit in np.ndenumerate(right.cpu().numpy()):
            digit = batch.labels[example, place].item()
            kept = (hits if hit else misses)[digit]
            if len(kept) < wanted:
                kept.append(prediction.capsules[example, digit].float())
        if min(map(len, hits.values())) >= wanted:
            break
    chosen = {digit: (hits[digit] + misses[digit])[:wanted] for digit in hits}
    return {digit: torch.stack(rows) for digit, rows in chosen.items() if rows}


class Sweep(NamedTuple):
    """What was measured of one digit: slopes by measure; ink_difference [d] in percent."""

    slopes: dict[str, Slopes]
    ink_difference: np.ndarray


def measure_sweep(model: nn.Module, poses: Tensor, digit: int, values: Tensor) -> Sweep:
    """Measure the reconstructions of the capsules `poses` [n, d], each dimension moved."""
    chosen = values[measured_values(len(values))]
    images = sweep(model, poses, digit, chosen)  # [n, d, v, h, w]
    shapes = measure(images.flatten(0, 2).cpu().numpy())
    slopes = {
        name: fit_slopes(measured.reshape(images.shape[:3]), chosen.double().numpy())
        for name, measured in shapes._asdict().items()
    }
    return Sweep(slopes, 100 * relative_change(images).cpu().numpy())


def measured_values(num_values: int) -> list[int]:
    """Which values of a sweep are measured: both ends, the middle, and two between, if any."""
    return sorted({int(place.round()) for place in np.linspace(0, num_values - 1, NUM_MEASURED)})


def draw_grids(
    model: nn.Module, capsules: dict[int, Tensor], sweeps: dict[int, Sweep],
    effects: pd.DataFrame, values: Tensor, folder: Path
) -> None:  # fmt: skip
    """Figure 4 of each digit: every dimension, of one and the same example."""
    names = effects.drop_duplicates(["digit", "dimension"]).groupby("digit")["name"].apply(list)
    for digit, poses in capsules.items():
        slopes = sweeps[digit].slopes.values()
        shown = typical(np.concatenate([one.slope / _scale(one.slope) for one in slopes], axis=1))
        images = sweep(model, poses[shown : shown + 1], digit, values)[0].cpu().numpy()
        path = folder / f"digit_{digit}.png"
        figures.perturbation_grid(images, values.numpy(), names[digit], path, digit=digit)


def draw_overview(
    model: nn.Module, capsules: dict[int, Tensor], sweeps: dict[int, Sweep],
    effects: pd.DataFrame, values: Tensor, folder: Path, title: str
) -> None:  # fmt: skip
    """A page with, for each measure, the dimension that changes it most clearly."""
    rows = []
    for _, row in clearest(effects).iterrows():
        digit, dimension = row["digit"], row["dimension"]
        shown = typical(sweeps[digit].slopes[row["measure"]].slope[:, [dimension]])
        images = sweep(model, capsules[digit][shown : shown + 1], digit, values)[0, dimension]
        name = describe(row)
        rows.append(figures.PerturbationRow(digit, dimension, name, images.cpu().numpy()))
    path = folder / "overview.png"
    if rows:
        title += ": the dimension that changes each measure most clearly"
        figures.perturbation_overview(rows, values.numpy(), path, title=title)
    else:
        note = "No dimension of any digit changes a measure visibly and beyond chance."
        figures.notice(path, title=f"{title}: no dimension has an effect", note=note)


def draw_heat_map(effects: pd.DataFrame, folder: Path, title: str) -> None:
    table = effects.assign(label=[describe(row) for _, row in effects.iterrows()])
    title += f": {told(effects)}; coloured where it is visible and beyond chance"
    draw_effects(table, folder / "effects.png", title=title)


def typical(slopes: np.ndarray) -> int:
    """The image whose slopes [n, m] are nearest to their mean over images, of those without NaN."""
    known = np.flatnonzero(np.isfinite(slopes).all(axis=1))
    if not len(known):
        return 0
    distance = np.square(slopes[known] - slopes[known].mean(axis=0)).sum(axis=1)
    return int(known[distance.argmin()])


def _scale(slopes: np.ndarray) -> float:
    """Typical size of the slopes of one measure, so that measures in other units count alike."""
    finite = slopes[np.isfinite(slopes)]
    return float(np.sqrt(np.mean(finite**2))) or 1.0 if finite.size else 1.0


@torch.inference_mode()
def sweep(model: nn.Module, poses: Tensor, digit: int, values: Tensor) -> Tensor:
    """Reconstructions [n, d, v, h, w]: dimension d of the capsules `poses` [n, d] moved by each
    value.
    """
    num_examples, pose_dim = poses.shape
    step = torch.eye(pose_dim, device=poses.device)[:, None] * values.to(poses.device)[:, None]
    moved = poses[:, None, None] + step  # [n, d, v, d]
    parts = [_decode_poses(model, digit, part) for part in moved.flatten(0, 2).split(1024)]
    return torch.cat(parts).unflatten(0, (num_examples, pose_dim, len(values)))


def _decode_poses(model: nn.Module, digit: int, poses: Tensor) -> Tensor:
    """Images [m, h, w] of the capsule of `digit` in the poses [m, d], the other capsules zero."""
    capsules = poses.new_zeros(len(poses), NUM_CLASSES, poses.shape[1])
    capsules[:, digit] = poses
    labels = torch.full((len(poses), 1), digit, device=poses.device)
    return decode(model, capsules, labels)[:, 0]


def relative_change(images: Tensor) -> Tensor:
    """How far a sweep's two ends differ, relative to the ink of the unperturbed digit: [d]."""
    middle = images.shape[2] // 2
    ends = (images[:, :, -1] - images[:, :, 0]).abs().sum(dim=(2, 3))
    ink = images[:, :, middle].sum(dim=(2, 3))
    return (ends / ink.clamp_min(1e-6)).mean(dim=0)


if __name__ == "__main__":
    run(main, "perturb")
