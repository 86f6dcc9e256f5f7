"""A trained network as one safetensors file: weights, and in the metadata all that rebuilds the
network.

Data, not code: loading runs nothing that the file brings along, and takes nothing that is not, bit
for bit, what was written. Same network, same bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from capsnet.networks import network_class

FORMAT = 2


def save(
    model: nn.Module,
    path: Path,
    *,
    network: str,
    arguments: Mapping[str, object],
    validation_error: float | None = None,
    evidence_limit: float | None = None,
) -> None:
    """Write `model` = `network_class(network)(**arguments)`.

    validation_error (percent) and evidence_limit (`capsnet.evidence`) stay with the file, so that
    whoever has nothing else knows how far to trust the network. What is None or NaN, as after a
    training without validation digits, is left out. A file of that name is whole at every moment.
    """
    description = {"network": network, "arguments": dict(arguments)}
    known = {"validation_error": validation_error, "evidence_limit": evidence_limit}
    for name, value in known.items():
        if value is not None and not math.isnan(value):
            description[name] = round(value, 4)
    data = _pack(description, {name: tensor.cpu() for name, tensor in model.state_dict().items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def describe(path: str | Path) -> dict[str, object]:
    """What `save` was told: `network`, `arguments` and, where known, the other two.

    Raises ValueError if the file is missing, no safetensors file, or not written by `save`.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: run `dvc repro` (or `dvc pull`)") from None
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from None
    if "capsnet" not in metadata:
        raise ValueError(
            f"{path} was not written by capsnet.checkpoint: its metadata has no `capsnet`"
        )
    try:
        description = json.loads(metadata["capsnet"])
        found = description["format"]
    except (ValueError, RecursionError, KeyError, TypeError):
        raise ValueError(f"{path} is damaged: its metadata is not what `save` writes") from None
    if found != FORMAT:
        raise ValueError(f"{path} has checkpoint format {found!r:.20}, this code reads {FORMAT}")
    return description


def load(path: str | Path) -> nn.Module:
    """Give the network back, on the CPU and in evaluation mode, ready to call.

    Raises ValueError as `describe` does, if one bit is not as it was written, or if this code
    knows no such network.
    """
    description = describe(path)
    tensors = safetensors.torch.load_file(path)
    wanted = {name: description[name] for name in description if name not in ("format", "digest")}
    if _digest(wanted, tensors) != description.get("digest"):
        raise ValueError(f"{path} is damaged: its contents are not those that were written")
    try:
        with torch.device("meta"):  # no memory, whatever sizes the file speaks of
            model = network_class(wanted["network"])(**wanted["arguments"])
        model.load_state_dict(tensors, assign=True)
    except Exception as error:  # the class may fail in any way over arguments that are not its own
        what = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path} holds no network that this code knows: {what:.500}") from None
    return model.eval()


def _pack(description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> bytes:
    whole = {"format": FORMAT, "digest": _digest(description, tensors), **description}
    # One metadata key only: safetensors writes several in an order that changes from process to
    # process.
    metadata = {"capsnet": json.dumps(whole, sort_keys=True)}
    return safetensors.torch.save(_contiguous(tensors), metadata)


def _digest(description: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Of all that the file says: safetensors checks sizes and names, but no bit of a weight."""
    digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    digest.update(safetensors.torch.save(_contiguous(tensors)))
    return digest.hexdigest()


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
