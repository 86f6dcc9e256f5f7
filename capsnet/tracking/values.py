"""Values in the form in which MLflow and DVC keep them: dotted names, texts, numbers, hashes."""

import hashlib
import json
import math
import numbers
import re
from collections.abc import Iterator, Mapping
from pathlib import Path


def flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """Nested mapping -> dotted names; letters that MLflow refuses in a name become `_`."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield re.sub(r"[^\w.\- /:]", "_", name)[:250], value


def finite_numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    for name, value in flat(values):
        if getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
            value = value.item()
        is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
        if is_number and math.isfinite(value):
            yield name, float(value)


def text(value: object) -> str:
    """A value as params.yaml spells it (`null`, `true`, `[3, 5]`), at most 500 characters."""
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    return shown if len(shown) <= 500 else f"{shown[:499]}…"


def reason(error: BaseException) -> str:
    """An error in one line of bearable length."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= 200 else f"{text[:199]}…"


def md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def folder_md5(folder: Path) -> str:
    """DVC's hash of a folder: MD5 of the list of names and MD5s, with the suffix `.dir`."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
    )
    if not files:
        raise FileNotFoundError(f"{folder}: no files, so no data to name")
    listing = [{"md5": md5(path), "relpath": relpath} for relpath, path in files]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"
