"""Weights as 8-bit integers with a step for each row, as fine as the page has room for."""

import copy
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
    """Steps at which a row's largest weight is 127, but at least `finest` times the row's root mean
    square: a coarser step packs smaller.
    """
    rows = weight.detach().float().cpu().flatten(1).numpy()
    steps = np.maximum(np.abs(rows).max(1) / 127, finest * np.sqrt(np.mean(rows**2, axis=1)))
    steps = np.where(steps > 0, steps, 1).astype(np.float32)
    return Quantised(np.rint(rows / steps[:, None]).astype(np.int8), steps)


def packed_size(weights: Mapping[str, Quantised]) -> int:
    """Bytes of the compressed integers."""
    return sum(len(zlib.compress(each.whole.tobytes(), 6)) for each in weights.values())


def fit_into(weights: Mapping[str, Tensor], room: int) -> dict[str, Quantised]:
    """Quantise with the finest of STEPS that fits into `room` bytes. ValueError if none does."""
    for finest in STEPS:
        found = {name: quantise(weight, finest) for name, weight in weights.items()}
        if packed_size(found) + sum(each.steps.nbytes for each in found.values()) <= room:
            return found
    raise ValueError("the network is too large for one page, with its coarsest weights too")


def with_weights(model: nn.Module, weights: Mapping[str, Quantised]) -> nn.Module:
    """A copy of the network with the quantised weights."""
    shown = copy.deepcopy(model)
    state = shown.state_dict()
    for name, (whole, steps) in weights.items():
        state[name] = torch.from_numpy(whole * steps[:, None]).reshape(state[name].shape)
    shown.load_state_dict(state)
    return shown
