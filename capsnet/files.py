"""Files that are whole at every moment, and their MD5."""

import hashlib
import json
import os
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write to a file aside, then rename it: whoever reads `path` finds the old bytes or the new.

    A process that is killed on the way leaves the file aside, which the next write takes over.
    Raises OSError with the name of the file; the old one is then untouched.
    """
    aside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(aside, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())  # or a power cut could leave the new name without its bytes
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"cannot write {path}: {why}; what was there before is untouched") from error


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
