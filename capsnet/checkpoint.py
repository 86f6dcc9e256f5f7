"""Checkpoints: one safetensors file with the weights and, as metadata, the network's arguments.

Loading executes no code, and a SHA-256 digest detects corruption. The same network gives the same
bytes.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from capsnet.data.mnist import About
from capsnet.files import replace_file
from capsnet.nn.registry import network_class

FORMAT = 3


def save(
    model: nn.Module,
    path: Path,
    *,
    network: str,
    arguments: Mapping[str, object],
    num_digits: int = 1,
    data: Mapping[str, object] | None = None,
    validation_error: float | None = None,
    rejection_threshold: float | None = None,
) -> None:
    """Write `model`, which is `network_class(network)(**arguments)`.

    num_digits: digits in an image. data: the fields of `capsnet.data.mnist.About` that differ from
    MNIST's. validation_error: percent. rejection_threshold: see `capsnet.learning.rejection`. A
    value that is None or NaN is left out. Raises the file system errors of `replace_file`.
    """
    description = {"network": network, "arguments": dict(arguments), "num_digits": num_digits}
    description |= data or {}
    known = {"validation_error": validation_error, "rejection_threshold": rejection_threshold}
    description |= {k: round(v, 4) for k, v in known.items() if v is not None and not math.isnan(v)}
    write(path, description, model.state_dict())


def describe(path: str | Path) -> dict[str, object]:
    """Read the metadata: `network`, `arguments`, `num_digits` and, where they are there, the other
    arguments of `save`.

    Raises ValueError if the file is missing, no safetensors file, or not written by `save`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: train small networks in minutes (`dvc exp run -S budget=quick`) "
            "or fetch those of a remote (`dvc pull`)"
        ) from None
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    try:
        description = json.loads(metadata["capsnet"])
        found = description["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged or not written by capsnet.checkpoint") from None
    if found != FORMAT:
        raise ValueError(f"{path} has checkpoint format {found!r:.20}, this code reads {FORMAT}")
    return description


def about(description: Mapping[str, object]) -> About:
    """The data set of a network, of what `describe` returns; by default MNIST."""
    return About.of({k: v for k, v in description.items() if k in About._fields})


def load(path: str | Path) -> nn.Module:
    """Build the network and load its weights, on the CPU and in evaluation mode.

    Each weight has the memory format of a new network. Raises ValueError as `describe` does, if
    the contents do not match the digest, or if this code knows no such network.
    """
    description, tensors = read(path)
    try:
        with torch.device("meta"):  # no memory, whatever sizes the file speaks of
            model = network_class(description["network"])(**description["arguments"])
        strides = {name: weight.stride() for name, weight in model.named_parameters()}
        model.load_state_dict(tensors, assign=True)
    except Exception as error:  # the class may fail in any way over arguments that are not its own
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path} holds no network that this code knows: {what:.500}") from None
    # The file holds contiguous tensors, perhaps in float16.
    for name, weight in model.named_parameters():
        weight.data = torch.empty_strided(weight.shape, strides[name]).copy_(weight.detach())
    return model.eval()


def write(path: Path, description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> None:
    """Write both to one file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    whole = {"format": FORMAT, "digest": _digest(description, tensors), **description}
    # One metadata key only: safetensors writes several in an order that changes from process to
    # process.
    metadata = {"capsnet": json.dumps(whole, sort_keys=True)}
    replace_file(path, safetensors.torch.save(tensors, metadata))


def read(path: str | Path) -> tuple[dict[str, object], dict[str, Tensor]]:
    """Read metadata and tensors, on the CPU. Raises ValueError if the digest does not match."""
    description = describe(path)
    tensors = safetensors.torch.load_file(path)
    metadata = {k: v for k, v in description.items() if k not in ("format", "digest")}
    if description.get("digest") != _digest(metadata, tensors):
        raise ValueError(f"{path} is damaged: its contents are not those that were written")
    return metadata, tensors


def _digest(description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of metadata and tensors: safetensors checks sizes and names, but not the values."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    digest.update(safetensors.torch.save(dict(tensors)))
    return digest.hexdigest()
