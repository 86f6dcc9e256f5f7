"""Stage `perturb@<run>`: what do the numbers of a digit capsule mean? (paper, section 5.1 and
Figure 4)

One number of the right capsule is changed from -range to +range, the other capsules stay zero, and
the decoder draws what the changed capsule stands for. Drawn for one test example of each digit; the
effect of a dimension is averaged over several.
"""

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from capsnet import figures
from capsnet.checkpoint import load
from capsnet.data.batches import evaluation_batches
from capsnet.data.mnist import NUM_CLASSES, load_digits
from capsnet.evaluation import decode, predict
from capsnet.metrics import found
from capsnet.metrics import predict as classes
from capsnet.params import Params, load_params, params_of, task_of, used_parameters
from capsnet.tracking import track
from stages.command import run
from stages.output import write_csv


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", help="key of `runs` in params.yaml")
    parser.add_argument("--digits", type=Path, required=True, help="folder of the four archives")
    parser.add_argument("--model", type=Path, required=True, help="checkpoint to perturb")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics of `evaluate`, JSON")
    parser.add_argument("--effects", type=Path, required=True, help="table to write, CSV")
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
    effects = pd.DataFrame(columns=["digit", "dimension", "change"])
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
        error = json.loads(arguments.metrics.read_text())[name]["error"]
        title = f"{name} (test error {error:.2f} %): the dimension that changes each digit most"
        effects = draw_perturbations(model, capsules, values, folder, title)
        print(f"{name}: {len(effects)} dimensions perturbed, figures in {folder}")
    write_csv(arguments.effects, effects)
    tracker.artifact(arguments.effects)
    tracker.artifact(folder, folder="perturbation")


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
    wanted = params.chosen_budget.perturb_examples
    hits: dict[int, list[Tensor]] = {digit: [] for digit in range(NUM_CLASSES)}
    misses: dict[int, list[Tensor]] = {digit: [] for digit in range(NUM_CLASSES)}
    for batch in batches:
        prediction = predict(model, batch.images, torch.float32)
        right = found(classes(prediction.lengths, task.num_digits), batch.labels)
        for (example, place), hit in np.ndenumerate(right.cpu().numpy()):
            digit = batch.labels[example, place].item()
            kept = (hits if hit else misses)[digit]
            if len(kept) < wanted:
                kept.append(prediction.capsules[example, digit].clone())
        if min(map(len, hits.values())) >= wanted:
            break
    chosen = {digit: (hits[digit] + misses[digit])[:wanted] for digit in hits}
    return {digit: torch.stack(rows) for digit, rows in chosen.items() if rows}


def draw_perturbations(
    model: nn.Module, capsules: dict[int, Tensor], values: Tensor, folder: Path, title: str
) -> pd.DataFrame:
    """A grid for each digit, a page of the most telling dimensions; the table of effects."""
    effects, rows = [], []
    for digit, poses in capsules.items():
        images = sweep(model, poses, digit, values)  # [n, d, v, h, w]
        changes = relative_change(images)
        figures.perturbation_grid(
            images[0].cpu().numpy(),
            values.numpy(),
            changes.cpu().numpy(),
            folder / f"digit_{digit}.png",
            digit=digit,
        )
        effects += [(digit, dimension, change.item()) for dimension, change in enumerate(changes)]
        telling = int(changes.argmax())
        picture = images[0, telling].cpu().numpy()
        rows.append(figures.PerturbationRow(digit, telling, changes[telling].item(), picture))
    figures.perturbation_overview(rows, values.numpy(), folder / "overview.png", title=title)
    return pd.DataFrame(effects, columns=["digit", "dimension", "change"])


@torch.inference_mode()
def sweep(model: nn.Module, poses: Tensor, digit: int, values: Tensor) -> Tensor:
    """Reconstructions [n, d, v, h, w]: dimension d of the capsules `poses` [n, d] moved by each
    value.
    """
    _num_examples, pose_dim = poses.shape
    step = torch.eye(pose_dim, device=poses.device)[:, None] * values.to(poses.device)[:, None]
    moved = poses[:, None, None] + step  # [n, d, v, d]
    decode_some = partial(_decode_poses, model, digit)
    return torch.stack([decode_some(example.flatten(0, 1)) for example in moved]).unflatten(
        1, (pose_dim, len(values))
    )


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
