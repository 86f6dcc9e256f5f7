"""Files that are whole at every moment."""

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
