"""Writing files: whole at every moment, with rounded numbers; and their MD5."""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

DIGITS = 6  # significant digits: more differ from machine to machine


def replace_file(path: Path, data: bytes) -> None:
    """Write to a temporary file and rename it, so that `path` always holds the old or new bytes.

    Raises OSError with the name of the file; the old one is then untouched.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name without its bytes
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"cannot write {path}: {why}; what was there before is untouched") from error


def write_text(path: Path, text: str) -> None:
    replace_file(path, text.encode())


def write_json(path: Path, values: Mapping[str, object]) -> None:
    write_text(path, json.dumps(rounded(values), indent=2) + "\n")


def write_csv(path: Path, table) -> None:
    """Write a DataFrame of pandas."""
    write_text(path, table.to_csv(index=False, float_format=f"%.{DIGITS}g", lineterminator="\n"))


def rounded(value: object) -> object:
    """Round every float of a nested mapping; NaN becomes None, which JSON can represent."""
    if isinstance(value, Mapping):
        return {str(key): rounded(entry) for key, entry in value.items()}
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value


def file_md5(path: Path) -> str:
    """The MD5 of a file in hexadecimal, which for a file is also outs.md5 in dvc.lock."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def folder_md5(folder: Path) -> str:
    """DVC's hash of a folder, outs.md5 in dvc.lock: the MD5 of the listing of its files."""
    files = sorted(
        (path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file()
    )
    listing = [{"md5": file_md5(path), "relpath": relpath} for relpath, path in files]
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"
