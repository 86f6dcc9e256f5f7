"""Failures of a routing kernel as errors that name the way out."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def kernel_of(device: str) -> Iterator[None]:
    """Around the passes of a faster way: whatever stops its kernel, but too little memory, becomes
    a ValueError that names the way out.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        if re.search("(out of|not enough|allocate) memory", str(error)):  # as a host says it
            raise
        what = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.200}"
        raise ValueError(
            f"the routing kernel for {device} did not start ({what}): "
            f"set routing.implementation=reference"
        ) from error
