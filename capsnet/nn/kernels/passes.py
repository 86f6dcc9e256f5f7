"""What the kernels share: the passes of routing (Procedure 1), forward and backward, and errors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from capsnet.nn.squash import squash, squash_gradient


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


def forward_passes(scan, first, bias, num_iterations):
    """Capsules, and the queries and sums s of all passes [k, ...]. `first` is the sum of pass 1 and
    scan(query) that of a later pass, both without bias; dimension 2 is the pose.
    """
    sums, queries = [first + bias], [torch.zeros_like(first)]  # Eq. 2
    capsules = squash(sums[0], dim=2)  # Eq. 1
    for _ in range(num_iterations - 1):
        queries.append(queries[-1] + capsules)  # v_1 + ... + v_{k-1}
        sums.append(scan(queries[-1]) + bias)  # Eq. 2
        capsules = squash(sums[-1], dim=2)  # Eq. 1
    return capsules, torch.stack(queries), torch.stack(sums)


def backward_passes(scan, queries, sums, grad_capsules, gradient):
    """Queries and dL/ds of the passes that have a gradient; scan(query, dL/ds) is dL/dquery."""
    grad_sums, grad_query = torch.zeros_like(sums), torch.zeros_like(sums[0])
    for k in reversed(range(len(sums))):
        grad_sums[k] = squash_gradient(sums[k], grad_capsules, dim=2)
        if gradient == "last":  # of the last pass, after a pass 1 with zero gradient
            return queries[-2:], grad_sums[-2:]
        if k > 0:  # the query of a pass sums the capsules of all earlier passes
            grad_query += scan(queries[k], grad_sums[k])
            grad_capsules = grad_query
    return queries, grad_sums
