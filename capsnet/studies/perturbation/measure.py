"""Perturb one dimension of a class capsule, decode it, and measure the reconstructions (paper,
section 5.1, Figure 4). All other capsules are zero.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from capsnet import metrics
from capsnet.config import RunConfig
from capsnet.data.mnist import Digits
from capsnet.learning.evaluation import Evaluator, decode
from capsnet.studies.perturbation import effects, morphometry
from capsnet.studies.perturbation.effects import Sweep
from capsnet.studies.registry import Measured

NUM_OVERLAID = 20  # examples of a digit that decide whether its shape stays
NUM_JUDGED = 1000  # images that decide whether shapes are measured
NUM_MEASURED = 5  # values of a sweep that are measured: they give the slope in half the time


def sweep_values(limit: float, step: float) -> Tensor:
    """-limit ... 0 ... +limit in steps; the middle is exactly zero."""
    half = round(limit / step)
    return torch.arange(-half, half + 1) * (limit / half)


def class_capsules(evaluator: Evaluator, num_examples: int, wanted: int) -> dict[int, Tensor]:
    """Capsules [n, d] of each digit in the first `wanted` test examples that predict it.

    Where there are too few, examples that miss the digit fill up the number.
    """
    classes = range(len(evaluator.digits.classes))
    hits: dict[int, list[Tensor]] = {digit: [] for digit in classes}
    misses: dict[int, list[Tensor]] = {digit: [] for digit in classes}
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
    """Values [d, v] from -2 to +2 standard deviations of each dimension of the capsules [n, d]."""
    deviations = poses.std(dim=0) if len(poses) > 1 else torch.zeros_like(poses[0])
    half = num_values // 2
    return 2 * deviations.cpu()[:, None] * torch.arange(-half, half + 1) / half


def measure_sweep(
    model: nn.Module, poses: Tensor, digit: int, values: Tensor, *, shapes: bool = True
) -> Sweep:
    """Measure the reconstructions of the capsules `poses` [n, d], each dimension moved by `values`
    [v] or its own of [d, v]: their shapes, or else their tones.
    """
    places = np.linspace(0, values.shape[-1] - 1, NUM_MEASURED)  # both ends, the middle, between
    measured = sorted({int(place.round()) for place in places})
    chosen = values[..., measured].expand(poses.shape[1], -1)
    images = sweep(model, poses, digit, chosen)  # [n, d, v, (c,) h, w]
    grey = (images.amax(dim=3) if images.ndim == 6 else images).cpu()
    found = (morphometry.measure if shapes else morphometry.tones)(grey.flatten(0, 2).numpy())
    slopes = {
        name: effects.fit_slopes(each.reshape(images.shape[:3]), chosen.double().numpy())
        for name, each in found._asdict().items()
    }
    ends = (grey[:NUM_OVERLAID, :, end].flatten(0, 1).numpy() for end in (0, -1))
    overlap = pd.DataFrame(morphometry.shape_overlap(*ends).reshape(-1, poses.shape[1])).mean()
    # The difference of the ends, relative to the ink in the middle.
    difference = (images[:, :, -1] - images[:, :, 0]).abs().flatten(2).sum(dim=2)
    ink = images[:, :, len(measured) // 2].flatten(2).sum(dim=2)
    difference = 100 * (difference / ink.clamp_min(1e-6)).mean(dim=0).cpu().numpy()
    return Sweep(slopes, chosen[:, -1].numpy(), difference, overlap.to_numpy())


def clearest_rows(
    model: nn.Module, capsules: dict[int, Tensor], sweeps: dict[int, Sweep],
    table: pd.DataFrame, values: dict[int, Tensor], classes: Sequence[str]
) -> dict[tuple[str, int, str], np.ndarray]:  # fmt: skip
    """For each measure the dimension with the largest effect, drawn for its most typical image: by
    class, dimension and effect, [v, (c,) h, w].
    """
    rows = {}
    for _, row in effects.clearest(table).iterrows():
        digit, dimension = row["digit"], row["dimension"]
        shown = typical(sweeps[digit].slopes[row["measure"]].slope[:, [dimension]])
        images = sweep(model, capsules[digit][[shown]], digit, values[digit])[0, dimension]
        rows[classes[digit], dimension, effects.effect_words(row)] = images.cpu().numpy()
    return rows


def typical_grid(
    model: nn.Module, poses: Tensor, digit: int, measured: Sweep, values: Tensor
) -> np.ndarray:
    """Figure 4 of one digit: [d, v, (c,) h, w], every dimension of the most typical image."""
    slopes = [one.slope for one in measured.slopes.values()]
    scales = [np.sqrt(np.nansum(slope**2) / max(1, np.isfinite(slope).sum())) for slope in slopes]
    pairs = zip(slopes, scales, strict=True)  # measures in different units get equal weight
    shown = typical(np.concatenate([slope / (scale or 1.0) for slope, scale in pairs], axis=1))
    return sweep(model, poses[[shown]], digit, values)[0].cpu().numpy()


def typical(slopes: np.ndarray) -> int:
    """Index of the image whose slopes [n, m] are nearest to their mean, of those without NaN."""
    known = np.flatnonzero(np.isfinite(slopes).all(axis=1))
    if not len(known):
        return 0
    distance = np.square(slopes[known] - slopes[known].mean(axis=0)).sum(axis=1)
    return int(known[distance.argmin()])


@torch.inference_mode()
def sweep(model: nn.Module, poses: Tensor, digit: int, values: Tensor) -> Tensor:
    """Reconstructions [n, d, v, (c,) h, w]: dimension d of the capsules `poses` [n, d] moved by
    each value of [v], or by its own of [d, v].
    """
    num_examples, pose_dim = poses.shape
    values = values.to(poses).expand(pose_dim, -1)
    step = torch.eye(pose_dim, device=poses.device)[:, None] * values[:, :, None]  # [d, v, d]
    images = []
    for part in (poses[:, None, None] + step).flatten(0, 2).split(1024):
        capsules = part.new_zeros(len(part), model.decoder.num_classes, pose_dim)
        capsules[:, digit] = part
        labels = torch.full((len(part), 1), digit, device=poses.device)
        images.append(decode(model, capsules, labels)[:, 0])
    return torch.cat(images).unflatten(0, (num_examples, pose_dim, values.shape[1]))


class Shown(NamedTuple):
    """Data of the figures and of the explorer. `rows` are by table."""

    capsules: dict[int, Tensor]  # by digit [n, d]
    values: np.ndarray
    rows: dict[str, dict[tuple[str, int, str], np.ndarray]]
    grids: dict[str, np.ndarray]  # by name of the class [d, v, (c,) h, w]


def named(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """A table of effects with names of classes in place of their numbers."""
    return table.assign(digit=[classes[digit] for digit in table["digit"]])


def shows_shapes(digits: Digits) -> bool:
    """Whether the first images show one bright object on dark: at least half of the border is dark
    in 90 % of them.
    """
    images = digits.images[:NUM_JUDGED].float() / 255
    grey = (images.amax(dim=1) if images.ndim == 4 else images).cpu().numpy()
    edges = [grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]]
    dark = np.median(np.concatenate(edges, axis=1), axis=1) <= morphometry.HAZE
    return bool(dark.mean() >= 0.9)


def study(evaluator: Evaluator, num_examples: int, config: RunConfig) -> Measured:
    """Effects over the range of the paper's Figure 4 ("perturbation") and within two standard
    deviations of the digit's capsules ("two_sigma"). Empty without a decoder. Shapes are measured
    where images show a bright object on dark, tones elsewhere.
    """
    model, names, classes = evaluator.model, ("perturbation", "two_sigma"), evaluator.digits.classes
    if model.decoder is None:
        return Measured(dict.fromkeys(names, pd.DataFrame(columns=effects.COLUMNS)))
    capsules = class_capsules(evaluator, num_examples, config.perturb_examples)
    values = sweep_values(config.perturb.range, config.perturb.step)
    two_sigma = {digit: two_sigma_values(poses, len(values)) for digit, poses in capsules.items()}
    shapes = shows_shapes(evaluator.digits)
    tables, rows, sweeps = {}, {}, {}
    for name, moved in zip(names, (dict.fromkeys(capsules, values), two_sigma), strict=True):
        sweeps[name] = {
            digit: measure_sweep(model, poses, digit, moved[digit], shapes=shapes)
            for digit, poses in capsules.items()
        }
        table = effects.effect_table(sweeps[name])
        rows[name] = clearest_rows(model, capsules, sweeps[name], table, moved, classes)
        tables[name] = named(table, classes)
    grids = {
        classes[digit]: typical_grid(model, poses, digit, sweeps["perturbation"][digit], values)
        for digit, poses in capsules.items()
    }
    return Measured(tables, Shown(capsules, values.numpy(), rows, grids))
