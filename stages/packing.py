"""A trained run as a few small files that can be carried: packed, sealed, and opened again."""

import hashlib
import json
from pathlib import Path

from capsnet import checkpoint
from capsnet.files import file_md5, replace_file

MOST_BYTES = 2**24  # of a packed file


def round_off(trained: Path, model: Path) -> None:
    """The network with its weights as 16 bits hold them: what is tested is what is packed."""
    told, tensors = checkpoint.read(trained)
    checkpoint.write(model, told, {key: each.half().float() for key, each in tensors.items()})


def pack(name: str, model: Path, texts: list[Path], about: dict, packed: Path) -> None:
    """The weights in 16 bits as numbered parts, then the rest as one JSON file that names them."""
    told, tensors = checkpoint.read(model)
    halves = model.with_name("halves.safetensors")
    checkpoint.write(halves, told, {key: each.half() for key, each in tensors.items()})
    data, parts = halves.read_bytes(), []
    for begin in range(0, len(data), MOST_BYTES):
        parts.append(f"{name}.{1 + len(parts)}.bin")
        replace_file(packed.with_name(parts[-1]), data[begin : begin + MOST_BYTES])
    about |= {
        "run": name,
        "parts": parts,
        "sha256": hashlib.sha256(data).hexdigest(),
        "network_md5": file_md5(model),
        "files": {path.name: path.read_text() for path in texts},
    }
    about["seal"] = seal(about)
    replace_file(packed, json.dumps(about, indent=1).encode())


def unpacked(path: Path) -> tuple[dict, bytes]:
    """What `pack` wrote. Raises ValueError if it is not whole."""
    try:
        about = json.loads(path.read_text())
        data = b"".join(path.with_name(part).read_bytes() for part in about["parts"])
        whole = hashlib.sha256(data).hexdigest() == about["sha256"]
        if whole and seal(about) == about["seal"]:
            return about, data
    except (ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{path} or its .bin files are not whole: bring them again")


def seal(about: dict) -> str:
    """SHA-256 of all else that is told, tables included."""
    return digest({key: value for key, value in about.items() if key != "seal"})


def digest(told: dict) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
