"""A trained network as one safetensors file: weights, and in the metadata all that rebuilds the
network.

Data, not code: loading runs nothing that the file brings along. Same network, same bytes.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
from torch import nn

from capsnet.networks import network_class

FORMAT = 1


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
    description = {"format": FORMAT, "network": network, "arguments": dict(arguments)}
    known = {"validation_error": validation_error, "evidence_limit": evidence_limit}
    for name, value in known.items():
        if value is not None and not math.isnan(value):
            description[name] = round(value, 4)
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    # One metadata key only: safetensors writes several in an order that changes from process to
    # process.
    data = safetensors.torch.save(tensors, {"capsnet": json.dumps(description, sort_keys=True)})
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
    description = json.loads(metadata["capsnet"])
    if description["format"] != FORMAT:
        raise ValueError(
            f"{path} has checkpoint format {description['format']}, this code reads {FORMAT}"
        )
    return description


def load(path: str | Path) -> nn.Module:
    """Give the network back, on the CPU and in evaluation mode, ready to call.

    Raises ValueError as `describe` does, or if this code knows no such network.
    """
    description = describe(path)
    try:
        model = network_class(description["network"])(**description["arguments"])
        model.load_state_dict(safetensors.torch.load_file(path))
    except (KeyError, TypeError, RuntimeError) as error:
        what = " ".join(str(error).split())
        raise ValueError(f"{path} holds no network that this code knows: {what}") from None
    return model.eval()
