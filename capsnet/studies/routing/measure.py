"""What the couplings do, iteration by iteration, and which part of an image each digit claims.

Most votes say next to nothing, so a mean over them says little of what routing does. Two ways to
weigh them stand side by side:

- by contribution: vote i adds c_ij u_ij . s_j / |s_j|^2 of the way to s_j, the sum of all coupled
  votes; over i that makes 1. It tells what the capsule is made of.
- by place: a lower capsule counts by its length. A place of the grid belongs to a digit when at
  least `OWNER` of the ink in the middle of its field of view is that digit's; on overlapping digits
  places between the two belong to neither. The middle is one kernel wide, the field nearly two:
  further out a digit is seen by few weights. It tells where in the image couplings differ.
"""

from collections.abc import Iterator
from math import sqrt
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
from capsnet.metrics import exact_match, wilson_interval
from capsnet.nn.registry import NETWORKS
from capsnet.nn.routing import Trace
from capsnet.studies.registry import Measured

CHUNK = 20  # images traced at a time: their votes are stored
OWNER = 0.8  # of the ink
NUM_SHOWN = 6
MOST = 0.8  # of the length of s_j
MAX_ITERATIONS = 10  # looked at with the trained weights, however many they were trained with
UNITS = {
    # Procedure 1 adds u . v to a logit, so its change grows with |v| (Figure A.1).
    "logit_change": "",  # mean |change| of a logit by this iteration's agreement
    "logit_change_change": "",  # mean |difference| of that from the iteration before
    "coupling_change": "%",  # mean |difference| of a coupling from the iteration before
    "entropy": "bits",  # of a lower capsule's couplings; log2 10 = 3.32 when they are even
    # Of a vote and the capsule it is for, weighed by its coupling, true digits only. Weighed all
    # alike it would be largest in iteration 1, whose capsule is the sum of all votes alike.
    "agreement": "cosine",
    "contributed_coupling": "%",  # of the votes for a digit there, by contribution
    "largest_coupling": "%",  # of all votes for a digit there
    "votes": "",  # the fewest that carry `MOST` of s_j of a digit there
    "positive_share": "%",  # of s_j, added by the votes that point its way; the others take away
    "length": "",  # of the capsule of a digit there
    "own_coupling": "%",  # of a digit's own places, to its own capsule
    "other_coupling": "%",  # to the capsule of the other digit in the image
    "absent_coupling": "%",  # to each of the digits that are not there, on average
    "error": "%",  # if one stopped after this iteration
}
COLUMNS = ["iteration", "measure", "value", "low", "high", "unit", "examples"]


class TracedSample(NamedTuple):
    """One image's traced routing, weighed by `strength` [i], the lengths of its lower capsules.
    The network was trained with `num_trained` iterations.
    """

    trace: Trace  # of this image: votes [i, j, d], the others [r, ...]
    strength: Tensor
    spatial_map: Tensor  # bool [k, i]: the lower capsules at the places of each digit
    num_places: int  # of the grid
    labels: list[int]
    num_trained: int


class Claims(NamedTuple):
    """An image [h, w] of `digits`, each clean [2, h, w], and by iteration the coupling mass of both
    over the grid of primary capsules: [r, 2, rows, columns].
    """

    image: np.ndarray
    sources: np.ndarray
    maps: np.ndarray
    digits: tuple[int, int]


def trace_routing(
    evaluator: Evaluator, predictions: Predictions, num_examples: int
) -> tuple[pd.DataFrame, list[Claims]]:
    """Trace the routing of the first test examples, at least to `MAX_ITERATIONS`.

    Returns the rows of COLUMNS, means over the examples with their 95 % intervals, and what the
    digits claim in the first examples that were right (wrong where none was: their routing is
    still to be seen).
    """
    values, right, wrong, begin = [], [], [], 0
    for batch in evaluator.batches(num_examples):
        correct = predictions.correct[begin : begin + len(batch)]
        begin += len(batch)
        for number, traced in enumerate(trace_samples(evaluator, batch)):
            values.append(measure(traced))
            kept = right if correct[number] else wrong
            if len(kept) < NUM_SHOWN:
                kept.append(claims(traced, batch.images[number, 0], batch.sources[number]))
    return summarise(torch.stack(values)), right or wrong


@torch.inference_mode()
def trace_samples(evaluator: Evaluator, batch: Batch) -> Iterator[TracedSample]:
    """The routing of each image of a batch."""
    model = evaluator.model
    for start in range(0, len(batch), CHUNK):
        images, _, sources, labels = (field[start : start + CHUNK] for field in batch)
        with autocast(images.device, evaluator.dtype):
            lower_bip = model.lower_capsules(images)
            trained = model.digit.num_iterations
            traced = model.digit.trace(lower_bip, max(trained, MAX_ITERATIONS))
        owned = spatial_map(sources, model.convolution.kernel_size[0])
        num_places = owned.shape[2]
        owned = owned.repeat(1, 1, lower_bip.shape[1] // num_places)  # type by type
        for n in range(len(images)):
            one = Trace(traced.votes[n], *(field[:, n] for field in traced[1:]))
            strength = lower_bip[n].float().norm(dim=-1)
            yield TracedSample(one, strength, owned[n], num_places, labels[n].tolist(), trained)


def spatial_map(sources: Tensor, kernel_size: int) -> Tensor:
    """Whose place of the grid it is, from the clean digits [b, k, h, w]: bool [b, k, places]."""
    edge = kernel_size // 2
    middle = sources[..., edge : sources.shape[-2] - edge, edge : sources.shape[-1] - edge]
    ink = avg_pool2d(middle, kernel_size, stride=2)
    everything = ink.sum(dim=1, keepdim=True)
    return ((ink >= OWNER * everything) & (everything > 0)).flatten(2)


def measure(traced: TracedSample) -> Tensor:
    """The values of UNITS of one image by iteration: [r, measures]; NaN for a digit of no place,
    and for what differs from the iteration before in the first.
    """
    votes, _, couplings, capsules = traced.trace
    labels, weight = traced.labels, traced.strength / traced.strength.sum().clamp_min(1e-12)
    products = torch.einsum("ijd,rjd->rij", votes, capsules)
    lengths = votes.norm(dim=-1) * capsules.norm(dim=-1).unsqueeze(1)
    cosine = products / lengths.clamp_min(1e-12)
    shares = couplings / couplings.sum(dim=2, keepdim=True)  # leaky ones sum to less than 1
    entropy = -torch.xlogy(shares, shares).sum(dim=2) / torch.log(torch.tensor(2.0))
    own, other = [], []
    for place, digit in enumerate(labels):
        strength = traced.strength * traced.spatial_map[place]
        mass = torch.einsum("i,rij->rj", strength / strength.sum(), shares)  # NaN: no place
        own.append(mass[:, digit])
        other.append(mass[:, [label for label in labels if label != digit]].sum(dim=1))
    own, other = torch.stack(own).nanmean(dim=0), torch.stack(other).nanmean(dim=0)
    absent = (1 - own - other) / max(1, shares.shape[2] - len(labels))
    mass = couplings * weight.unsqueeze(1)
    agreement = (mass * cosine).sum(dim=1) / mass.sum(dim=1).clamp_min(1e-12)
    parts = contributions(votes[:, labels], couplings[:, :, labels])
    coupled = couplings[:, :, labels]
    digits = torch.tensor([labels]).expand(len(capsules), -1)
    wrong = ~exact_match(capsules.norm(dim=-1), digits.to(capsules.device))
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
        "absent_coupling": 100 * absent,
        "error": 100.0 * wrong,
    }
    return torch.stack([values[name] for name in UNITS], dim=1)


def contributions(votes: Tensor, couplings: Tensor) -> Tensor:
    """The share of each vote [i, k, d] in the sum s of all, weighed by couplings [r, i, k]:
    [r, i, k], with sum 1 over i; negative where a vote points away from s.
    """
    s = torch.einsum("rik,ikd->rkd", couplings, votes)
    along = torch.einsum("ikd,rkd->rik", votes, s)
    return couplings * along / s.square().sum(dim=-1).clamp_min(1e-12).unsqueeze(1)


def num_votes(parts: Tensor) -> Tensor:
    """The fewest votes whose shares [r, i, k] make `MOST` of the sum: float [r, k]."""
    carried = parts.sort(dim=1, descending=True).values.cumsum(dim=1)
    return 1.0 + (carried < MOST).int().cummin(dim=1).values.sum(dim=1)


def difference(values: Tensor) -> Tensor:
    """Mean |difference| of values [r, i, j] from those of the iteration before: [r]."""
    changes = values.diff(dim=0).abs().mean(dim=(1, 2))
    return torch.cat([changes.new_full((1,), float("nan")), changes])


def summarise(values: Tensor) -> pd.DataFrame:
    """Means over the images [n, r, measures] with their 95 % intervals: of an error Wilson's, of
    the others a normal one.
    """
    rows = []
    for iteration in range(values.shape[1]):
        for place, (name, unit) in enumerate(UNITS.items()):
            found = values[:, iteration, place].double()
            found = found[~found.isnan()]
            if name == "error":
                interval = wilson_interval(int((found > 0).sum()), len(found))
            else:
                mean, error = found.mean().item(), 0.0
                if len(found) > 1:
                    error = 1.96 * found.std().item() / sqrt(len(found))
                interval = (mean, mean - error, mean + error)
            rows.append((iteration + 1, name, *interval, unit, len(found)))
    return pd.DataFrame(rows, columns=COLUMNS)


def claims(traced: TracedSample, image: Tensor, sources: Tensor) -> Claims:
    """What each of two digits claims: coupling times length, summed over the types at each place.

    Of one digit in the image the other is the wrong one with the longest capsule.
    """
    _, _, couplings, capsules = (part[: traced.num_trained] for part in traced.trace)
    digits = list(traced.labels)
    if len(digits) == 1:
        lengths = capsules[-1].norm(dim=-1)
        lengths[digits] = -1
        digits.append(int(lengths.argmax()))
    mass = couplings[:, :, digits] * traced.strength.unsqueeze(1)  # [r, i, 2]
    size = round(sqrt(traced.num_places))
    maps = mass.unflatten(1, (-1, size, size)).sum(dim=1).movedim(-1, 1)  # [r, 2, h, w]
    clean = torch.stack([sources[0], sources[-1] if len(sources) > 1 else torch.zeros_like(image)])
    return Claims(image.cpu().numpy(), clean.cpu().numpy(), maps.cpu().numpy(), tuple(digits))


def study(evaluator: Evaluator, predictions: Predictions, config: RunConfig) -> Measured:
    """What happens in each iteration, and which part of an image each digit claims."""
    if not NETWORKS[config.network].routes:
        return Measured({"routing": pd.DataFrame(columns=COLUMNS)})
    few = min(config.study_examples, len(predictions.labels))
    table, shown = trace_routing(evaluator, predictions, few)
    return Measured({"routing": table}, shown)
