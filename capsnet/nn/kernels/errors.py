"""Error messages of routing kernels."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kernel_of(device: str) -> Iterator[None]:
    """Raise a ValueError that names `implementation=reference` for any error of a kernel except
    out of memory.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if re.search("(out of|not enough|allocate) memory", str(error)):  # on the host
            raise
        what = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}"
        raise ValueError(
            f"the routing kernel for {device} did not start ({what}): "
            f"set routing.implementation=reference"
        ) from error
