"""One number of a digit's capsule is changed, the others stay, the other capsules are zero: what
does the decoder draw? (paper, section 5.1, Figure 4)
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.archives import NUM_CLASSES
from capsnet.learning.evaluation import Evaluator, decode
from capsnet.studies.perturbation.effects import (
    COLUMNS,
    Sweep,
    clearest,
    effect_table,
    effect_words,
    fit_slopes,
)
from capsnet.studies.perturbation.morphometry import measure, shape_overlap
from capsnet.studies.registry import Measured

NUM_OVERLAID = 20  # examples of a digit: enough to say whether a shape stays
NUM_MEASURED = 5  # of the values of a sweep: they give a slope as well as all, in half the time


class PerturbationRow(NamedTuple):
    """One dimension of one digit's capsule: what it does and images [num_values, h, w]."""

    digit: int
    dimension: int
    name: str
    images: np.ndarray


def sweep_values(limit: float, step: float) -> Tensor:
    """-limit ... 0 ... +limit in steps; the middle is exactly zero: the unperturbed capsule."""
    half = round(limit / step)
    return torch.arange(-half, half + 1) * (limit / half)


def right_capsules(evaluator: Evaluator, num_examples: int, wanted: int) -> dict[int, Tensor]:
    """For each digit, its capsule [n, d] in the first `wanted` test examples in which it was found.

    Where a poor network found too few, examples in which it missed the digit make up the number.
    """
    hits: dict[int, list[Tensor]] = {digit: [] for digit in range(NUM_CLASSES)}
    misses: dict[int, list[Tensor]] = {digit: [] for digit in range(NUM_CLASSES)}
    for batch in evaluator.batches(num_examples):
        prediction = evaluator.predict(batch.images)
        predicted = metrics.predict(prediction.lengths, evaluator.num_digits)
        right = metrics.found(predicted, batch.labels)
        for (example, place), hit in np.ndenumerate(right.cpu().numpy()):
            digit = batch.labels[example, place].item()
            kept = (hits if hit else misses)[digit]
            if len(kept) < wanted:
                kept.append(prediction.capsules[example, digit].float())
        if min(map(len, hits.values())) >= wanted:
            break
    chosen = {digit: (hits[digit] + misses[digit])[:wanted] for digit in hits}
    return {digit: torch.stack(rows) for digit, rows in chosen.items() if rows}


def two_sigma_values(poses: Tensor, num_values: int) -> Tensor:
    """From two standard deviations below to two above what is usual for a digit, dimension by
    dimension: [d, v] from its capsules [n, d]. The middle is exactly zero.
    """
    deviations = poses.std(dim=0) if len(poses) > 1 else torch.zeros_like(poses[0])
    half = num_values // 2
    return 2 * deviations.cpu()[:, None] * torch.arange(-half, half + 1) / half


def measure_sweep(model: nn.Module, poses: Tensor, digit: int, values: Tensor) -> Sweep:
    """Measure the reconstructions of the capsules `poses` [n, d], each dimension moved by `values`
    [v] or its own of [d, v].
    """
    chosen = values[..., measured_values(values.shape[-1])].expand(poses.shape[1], -1)
    images = sweep(model, poses, digit, chosen)  # [n, d, v, h, w]
    shapes = measure(images.flatten(0, 2).cpu().numpy())
    slopes = {
        name: fit_slopes(measured.reshape(images.shape[:3]), chosen.double().numpy())
        for name, measured in shapes._asdict().items()
    }
    ends = (images[:NUM_OVERLAID, :, end].flatten(0, 1).cpu().numpy() for end in (0, -1))
    alike = shape_overlap(*ends).reshape(-1, poses.shape[1])
    return Sweep(
        slopes,
        limit=chosen[:, -1].numpy(),
        ink_difference=100 * relative_change(images).cpu().numpy(),
        shape_overlap=np.nanmean(alike, axis=0) if np.isfinite(alike).any() else alike[0],
    )


def measured_values(num_values: int) -> list[int]:
    """Which values of a sweep are measured: both ends, the middle, and two between, if any."""
    return sorted({int(place.round()) for place in np.linspace(0, num_values - 1, NUM_MEASURED)})


def typical_grid(
    model: nn.Module, poses: Tensor, digit: int, measured: Sweep, values: Tensor
) -> np.ndarray:
    """Figure 4 of one digit: [d, v, h, w], every dimension of the most typical example."""
    slopes = measured.slopes.values()
    shown = typical(np.concatenate([one.slope / _scale(one.slope) for one in slopes], axis=1))
    return sweep(model, poses[shown : shown + 1], digit, values)[0].cpu().numpy()


def clearest_rows(
    model: nn.Module, capsules: dict[int, Tensor], sweeps: dict[int, Sweep],
    effects: pd.DataFrame, values: dict[int, Tensor]
) -> list[PerturbationRow]:  # fmt: skip
    """For each measure, the dimension that changes it most clearly, of its most typical example."""
    rows = []
    for _, row in clearest(effects).iterrows():
        digit, dimension = row["digit"], row["dimension"]
        shown = typical(sweeps[digit].slopes[row["measure"]].slope[:, [dimension]])
        poses = capsules[digit][shown : shown + 1]
        images = sweep(model, poses, digit, values[digit])[0, dimension]
        rows.append(PerturbationRow(digit, dimension, effect_words(row), images.cpu().numpy()))
    return rows


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
    value of [v], or by its own of [d, v].
    """
    num_examples, pose_dim = poses.shape
    values = values.to(poses).expand(pose_dim, -1)
    step = torch.eye(pose_dim, device=poses.device)[:, None] * values[:, :, None]  # [d, v, d]
    moved = poses[:, None, None] + step  # [n, d, v, d]
    parts = [_decode_poses(model, digit, part) for part in moved.flatten(0, 2).split(1024)]
    return torch.cat(parts).unflatten(0, (num_examples, pose_dim, values.shape[1]))


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


class Shown(NamedTuple):
    """The capsules [n, d] of each digit and what is drawn of them. `rows` are by the name of their
    table: "perturbation" is moved by `values`, "two_sigma" by `deviations` times the standard
    deviation of each dimension. reach: two standard deviations [d] of each digit.
    """

    capsules: dict[int, Tensor]
    values: np.ndarray
    deviations: np.ndarray
    rows: dict[str, list[PerturbationRow]]
    grids: dict[int, np.ndarray]
    reach: dict[int, list[float]]


def study(evaluator: Evaluator, num_examples: int, config: RunConfig) -> Measured:
    """What each dimension of each digit's capsule does: over the range of the paper's Figure 4, and
    over two standard deviations of the digit's capsules either way. Empty without a decoder.
    """
    model = evaluator.model
    if model.decoder is None:
        return Measured(
            {name: pd.DataFrame(columns=COLUMNS) for name in ("perturbation", "two_sigma")}
        )
    capsules = right_capsules(evaluator, num_examples, config.perturb_examples)
    values = sweep_values(config.perturb.range, config.perturb.step)
    two_sigma = {digit: two_sigma_values(poses, len(values)) for digit, poses in capsules.items()}
    sweeps, tables, rows = {}, {}, {}
    for name, moved in {
        "perturbation": dict.fromkeys(capsules, values),
        "two_sigma": two_sigma,
    }.items():
        sweeps[name] = {
            digit: measure_sweep(model, poses, digit, moved[digit])
            for digit, poses in capsules.items()
        }
        tables[name] = effect_table(sweeps[name])
        rows[name] = clearest_rows(model, capsules, sweeps[name], tables[name], moved)
    grids = {
        digit: typical_grid(model, poses, digit, sweeps["perturbation"][digit], values)
        for digit, poses in capsules.items()
    }
    deviations = sweep_values(2, 4 / (len(values) - 1)).numpy()
    reach = {digit: moved[:, -1].tolist() for digit, moved in two_sigma.items()}
    return Measured(tables, Shown(capsules, values.numpy(), deviations, rows, grids, reach))
