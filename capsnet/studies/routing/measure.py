"""Couplings by routing iteration, and where in the image the votes for each digit come from.

Most votes are nearly zero, so a mean over all votes says little about routing. Two weightings are
reported:

- by contribution: vote i contributes c_ij u_ij . s_j / |s_j|^2 to s_j, the sum of all coupled
  votes; the contributions sum to 1 over i.
- by position: a lower capsule counts by its length. A grid position belongs to a digit if at least
  `OWNER` of the ink in the middle half of its receptive field is that digit's. Positions between
  overlapping digits belong to neither.
"""

from collections.abc import Iterator
from math import log, sqrt
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from capsnet.config import RunConfig
from capsnet.data.batches import Batch
from capsnet.learning.device import autocast
from capsnet.learning.evaluation import Evaluator, Predictions
from capsnet.metrics import brightness, exact_match, mean_interval, wilson_interval
from capsnet.nn.layers import grid_size, receptive_field
from capsnet.nn.registry import NETWORKS
from capsnet.nn.routing import Trace
from capsnet.studies.registry import Measured

CHUNK = 20  # images traced at a time: their votes are stored
OWNER = 0.8  # of the ink
NUM_SHOWN = 6
MOST = 0.8  # of the length of s_j
MAX_ITERATIONS = 10  # traced with the trained weights, however many were trained
UNITS = {  # means over the classes present, unless stated otherwise
    "logit_change": "",  # mean |u . v|, the change of a logit; grows with |v|; all classes
    "logit_change_change": "",  # its mean |difference| from the previous iteration; all classes
    "coupling_change": "%",  # mean |difference| from the previous iteration; all classes
    "entropy": "bits",  # of a lower capsule's couplings; of ten classes log2 10 = 3.32 if uniform
    "agreement": "cosine",  # of vote and capsule, weighted by the coupling
    "contributed_coupling": "%",  # coupling of the votes, weighted by contribution
    "largest_coupling": "%",
    "votes": "",  # fewest votes that carry `MOST` of s_j
    "positive_share": "%",  # of s_j, sum of the positive contributions
    "length": "",  # of the class capsule
    "own_coupling": "%",  # at a digit's own positions, to its own capsule
    "other_coupling": "%",  # to the capsule of the other digit in the image
    "absent_coupling": "%",  # to each absent class
    "error": "%",  # with this number of iterations
}
COLUMNS = ["iteration", "measure", "value", "low", "high", "unit", "examples"]


class TracedSample(NamedTuple):
    """The routing of one image."""

    trace: Trace  # votes [i, j, d], the others [r, ...]
    strength: Tensor  # [i] lengths of the lower capsules
    spatial_map: Tensor  # bool [k, i]: lower capsules at the positions of each digit
    num_positions: int  # of the grid
    labels: list[int]
    num_trained: int  # iterations in training
    field: tuple[int, int]  # width of a position's receptive field and stride, in pixels


class VoteMaps(NamedTuple):
    """Votes for two `digits` over one image [(c,) h, w] with the sources [2, (c,) h, w].

    `maps` [2, rows, columns] is the share of the capsule that the votes from a position contribute
    after the last iteration of the training; zero where they point away from it. A position sees
    `width` pixels; the next one is `stride` pixels away.
    """

    image: np.ndarray
    sources: np.ndarray
    maps: np.ndarray
    digits: tuple[int, int]
    width: int
    stride: int


def trace_routing(
    evaluator: Evaluator, predictions: Predictions, num_examples: int
) -> tuple[pd.DataFrame, list[VoteMaps]]:
    """Trace the first test examples for at least `MAX_ITERATIONS`.

    Returns the rows of COLUMNS, means over the examples with 95 % intervals, and the maps of votes
    of the first correct examples, or of wrong ones if none is correct.
    """
    values, right, wrong, begin = [], [], [], 0
    for batch in evaluator.batches(num_examples):
        correct = predictions.correct[begin : begin + len(batch)]
        begin += len(batch)
        for number, traced in enumerate(trace_samples(evaluator, batch)):
            values.append(measure(traced))
            kept = right if correct[number] else wrong
            if len(kept) < NUM_SHOWN:
                image = batch.images[number]
                image = image[0] if len(image) == 1 else image
                kept.append(vote_maps(traced, image, batch.sources[number]))
    return summarise(torch.stack(values)), right or wrong


@torch.inference_mode()
def trace_samples(evaluator: Evaluator, batch: Batch) -> Iterator[TracedSample]:
    """Trace the routing of each image of a batch."""
    model = evaluator.model
    trained = model.digit.num_iterations
    for start in range(0, len(batch), CHUNK):
        images, _, sources, labels = (field[start : start + CHUNK] for field in batch)
        with autocast(images.device, evaluator.dtype):
            lower_bip = model.lower_capsules(images)
            traced = model.digit.trace(lower_bip, max(trained, MAX_ITERATIONS))
        field = receptive_field(model.layers)
        owned = spatial_map(sources, *field, grid_size(images.shape[-1], model.layers))
        num_positions = owned.shape[2]
        owned = owned.repeat(1, 1, lower_bip.shape[1] // num_positions)  # type by type
        for n in range(len(images)):
            one = Trace(traced.votes[n], *(field[:, n] for field in traced[1:]))
            strength = lower_bip[n].float().norm(dim=-1)
            yield TracedSample(
                one, strength, owned[n], num_positions, labels[n].tolist(), trained, field
            )


def spatial_map(sources: Tensor, width: int, stride: int, grid: int) -> Tensor:
    """Grid positions that belong to each of the sources [b, k, (c,) h, w]: bool [b, k, positions].

    width: of the receptive field of a position, in pixels. stride: to the next one.
    """
    sources, middle = brightness(sources), width // 2 + 1
    edge = (width - middle) // 2
    ink = avg_pool2d(sources[..., edge:, edge:], middle, stride)[..., :grid, :grid]
    total = ink.sum(dim=1, keepdim=True)
    return ((ink >= OWNER * total) & (total > 0)).flatten(2)


def measure(traced: TracedSample) -> Tensor:
    """UNITS by iteration: [r, measures]. NaN without a position and for first differences."""
    votes, couplings, capsules = traced.trace
    labels, weight = traced.labels, traced.strength / traced.strength.sum().clamp_min(1e-12)
    products = torch.einsum("ijd,rjd->rij", votes, capsules)
    lengths = votes.norm(dim=-1) * capsules.norm(dim=-1).unsqueeze(1)
    cosine = products / lengths.clamp_min(1e-12)
    shares = couplings / couplings.sum(dim=2, keepdim=True)  # leaky ones sum to less than 1
    entropy = -torch.xlogy(shares, shares).sum(dim=2) / log(2)
    own, other = positional_couplings(traced, shares)
    mass = couplings * weight.unsqueeze(1)
    agreement = (mass * cosine).sum(dim=1) / mass.sum(dim=1).clamp_min(1e-12)
    coupled = couplings[:, :, labels]
    parts = contributions(votes[:, labels], coupled)
    digits = torch.tensor([labels], device=capsules.device).expand(len(capsules), -1)
    values = {
        "logit_change": products.abs().mean(dim=(1, 2)),
        "logit_change_change": difference(products),
        "coupling_change": 100 * difference(couplings),
        "entropy": entropy @ weight,
        "agreement": agreement[:, labels].mean(dim=1),
        "contributed_coupling": 100 * (parts * coupled).sum(dim=1).mean(dim=1),
        "largest_coupling": 100 * coupled.amax(dim=1).mean(dim=1),
        "votes": num_votes(parts).mean(dim=1),
        "positive_share": 100 * parts.clamp_min(0).sum(dim=1).mean(dim=1),
        "length": capsules[:, labels].norm(dim=-1).mean(dim=1),
        "own_coupling": 100 * own,
        "other_coupling": 100 * other,
        "absent_coupling": 100 * (1 - own - other) / max(1, shares.shape[2] - len(labels)),
        "error": 100.0 * ~exact_match(capsules.norm(dim=-1), digits),
    }
    return torch.stack([values[name] for name in UNITS], dim=1)


def positional_couplings(traced: TracedSample, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Mean coupling [r] at each digit's positions to its own capsule and to the other digit's."""
    own, other = [], []
    for place, digit in enumerate(traced.labels):
        strength = traced.strength * traced.spatial_map[place]
        mass = torch.einsum("i,rij->rj", strength / strength.sum(), shares)  # NaN: no position
        own.append(mass[:, digit])
        other.append(mass[:, [label for label in traced.labels if label != digit]].sum(dim=1))
    return torch.stack(own).nanmean(dim=0), torch.stack(other).nanmean(dim=0)


def contributions(votes: Tensor, couplings: Tensor) -> Tensor:
    """Contribution [r, i, k] of each vote [i, k, d] to the sum s of all votes with the couplings
    [r, i, k]: sums to 1 over i, negative for votes that point away from s.
    """
    s = torch.einsum("rik,ikd->rkd", couplings, votes)
    along = torch.einsum("ikd,rkd->rik", votes, s)
    return couplings * along / s.square().sum(dim=-1).clamp_min(1e-12).unsqueeze(1)


def num_votes(parts: Tensor) -> Tensor:
    """The fewest votes whose contributions [r, i, k] sum to `MOST`: float [r, k]."""
    carried = parts.sort(dim=1, descending=True).values.cumsum(dim=1)
    return 1.0 + (carried < MOST).int().cummin(dim=1).values.sum(dim=1)


def difference(values: Tensor) -> Tensor:
    """Mean |difference| of values [r, i, j] from the previous iteration: [r], NaN in the first."""
    changes = values.diff(dim=0).abs().mean(dim=(1, 2))
    return torch.cat([changes.new_full((1,), float("nan")), changes])


def summarise(values: Tensor) -> pd.DataFrame:
    """Means over images [n, r, measures], 95 % intervals: Wilson's for the error, else normal."""
    rows = []
    for iteration in range(values.shape[1]):
        for place, (name, unit) in enumerate(UNITS.items()):
            found = values[:, iteration, place]
            *interval, count = mean_interval(found)
            if name == "error":
                interval = wilson_interval(int((found > 0).sum()), count)
            rows.append((iteration + 1, name, *interval, unit, count))
    return pd.DataFrame(rows, columns=COLUMNS)


def vote_maps(traced: TracedSample, image: Tensor, sources: Tensor) -> VoteMaps:
    """Maps of both digits; for a single digit, of it and the longest wrong class."""
    last = traced.num_trained - 1
    digits, couplings = list(traced.labels), traced.trace.couplings[last]
    if len(digits) == 1:
        lengths = traced.trace.capsules[last].norm(dim=-1)
        lengths[digits] = -1
        digits.append(int(lengths.argmax()))
    parts = contributions(traced.trace.votes[:, digits], couplings[None, :, digits])[0]  # [i, 2]
    size = round(sqrt(traced.num_positions))
    maps = parts.unflatten(0, (-1, size, size)).sum(dim=0).clamp_min(0).movedim(-1, 0)
    clean = torch.stack([sources[0], sources[-1] if len(sources) > 1 else torch.zeros_like(image)])
    parts = (image, clean, maps)
    return VoteMaps(*(part.cpu().numpy() for part in parts), tuple(digits), *traced.field)


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """Routing by iteration and maps of votes; empty for a network that does not route."""
    if not NETWORKS[config.network].routes:
        return Measured({"routing": pd.DataFrame(columns=COLUMNS)})
    num_examples = min(config.study_examples, len(predictions.labels))
    table, shown = trace_routing(evaluator, predictions, num_examples)
    return Measured({"routing": table}, shown)
