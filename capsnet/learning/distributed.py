"""Data-parallel training with torchrun: each process takes a shard of every batch.

Without torchrun there is one process and every operation here is the identity. Gradients and losses
are means over all shards, so m processes compute what one computes with the whole batch, up to
rounding. Batch normalization normalizes each shard by itself; the running statistics are rank 0's.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

TIMEOUT = timedelta(minutes=5)  # a process that is silent for so long counts as lost
T = TypeVar("T")


class Distributed(NamedTuple):
    """The rank of this process and the number of processes. Rank 0 writes and logs."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def shard(self, draws: Tensor) -> Tensor:
        """The shard [b / m, ...] of this process. Raises ValueError if m does not divide b."""
        if len(draws) % self.size:
            raise ValueError(
                f"a batch of {len(draws)} images cannot be shared by {self.size} processes: "
                f"wanted a batch_size that {self.size} divides"
            )
        size = len(draws) // self.size
        return draws[self.rank * size : (self.rank + 1) * size]

    def broadcast_buffers(self, module: nn.Module) -> None:
        """Give all processes the running statistics of rank 0."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def sum(self, values: Tensor) -> Tensor:
        """All-reduce: the sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """Call `make` on rank 0 and broadcast its result."""
        made = [make() if self.first else None]
        if self.size > 1:
            dist.broadcast_object_list(made)
        return made[0]

    def agree(self, what: str, value: object) -> None:
        """Raises ValueError if `value` differs between processes."""
        if any(other != value for other in self.gather([value])):
            raise ValueError(f"the processes have different {what}: give all machines the same")

    def gather(self, parts: list) -> list:
        """All-gather lists that were dealt round-robin over the ranks, in the original order."""
        if self.size == 1:
            return parts
        found: list = [None] * self.size
        dist.all_gather_object(found, parts)
        return [part for several in zip_longest(*found) for part in several if part is not None]


SINGLE_PROCESS = Distributed()


@contextmanager
def init_distributed(device: torch.device) -> Iterator[Distributed]:
    """Join torchrun's process group, if any. Raises ConnectionError if another process is lost."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield SINGLE_PROCESS
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
        yield Distributed(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
            raise
        what = str(error).strip().partition("\n")[0]
        message = f"another process was lost, start again to go on ({what:.200})"
        raise ConnectionError(message) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
