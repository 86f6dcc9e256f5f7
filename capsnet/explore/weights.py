"""Weights as whole numbers of 8 bits and a step for each row, as fine as there is room for."""

import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

STEPS = (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)


class Quantised(NamedTuple):
    """A weight [rows, columns] as int8, its steps float32 [rows]."""

    whole: np.ndarray
    steps: np.ndarray


def quantise(weight: Tensor, finest: float) -> Quantised:
    """A row's step reaches its largest weight with 127, and is at least `finest` times the row's
    root mean square: zero takes all 8 bits, more is coarser and packs smaller.
    """
    rows = weight.detach().float().cpu().flatten(1).numpy()
    steps = np.maximum(np.abs(rows).max(1) / 127, finest * np.sqrt(np.mean(rows**2, axis=1)))
    steps = np.where(steps > 0, steps, 1).astype(np.float32)
    return Quantised(np.rint(rows / steps[:, None]).astype(np.int8), steps)


def fit_into(weights: Mapping[str, Tensor], room: int) -> tuple[float, dict[str, Quantised]]:
    """All quantised with the finest of STEPS with which they pack into `room` bytes. Raises
    ValueError if none is coarse enough.
    """
    for finest in STEPS:
        found = {name: quantise(weight, finest) for name, weight in weights.items()}
        packed = sum(len(zlib.compress(each.whole.tobytes(), 6)) for each in found.values())
        if packed + 4 * sum(len(each.steps) for each in found.values()) <= room:
            return finest, found
    raise ValueError("the network is too large for one page, with its coarsest weights too")


def bits_of(weights: Mapping[str, Quantised]) -> float:
    """How many bits a weight takes when all are packed, on average."""
    packed = sum(len(zlib.compress(each.whole.tobytes(), 6)) for each in weights.values())
    return 8 * packed / max(1, sum(each.whole.size for each in weights.values()))


def as_shown(model: nn.Module, weights: Mapping[str, Quantised]) -> dict[str, Tensor]:
    """The state of the network with the weights that the page has."""
    state = dict(model.state_dict())
    for name, (whole, steps) in weights.items():
        found = torch.from_numpy(whole * steps[:, None]).reshape(state[name].shape)
        state[name] = found.to(state[name])
    return state
