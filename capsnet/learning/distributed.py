"""One training in several processes, as torchrun starts them: each takes its share of every batch.

Without torchrun there is one process, and nothing here does anything. The gradients and the losses
are means over all shares, so that m processes do, but for rounding, what one does with the whole
batch.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

SILENCE = timedelta(minutes=5)  # of another process, until it counts as lost
T = TypeVar("T")


class Ranks(NamedTuple):
    """Which of how many processes this is. The first one writes and logs for all."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, draws: Tensor) -> Tensor:
        """The part [b / m, ...] of this process; raises ValueError if not all get as many."""
        if len(draws) % self.size:
            raise ValueError(
                f"a batch of {len(draws)} images cannot be shared by {self.size} processes: "
                f"wanted a batch_size that {self.size} divides"
            )
        size = len(draws) // self.size
        return draws[self.rank * size : (self.rank + 1) * size]

    def together(self, module: nn.Module) -> nn.Module:
        """The module, its gradients the means over all processes."""
        return DistributedDataParallel(module) if self.size > 1 else module

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes, element by element, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def from_first(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all."""
        made = [make() if self.first else None]
        if self.size > 1:
            distributed.broadcast_object_list(made)
        return made[0]

    def agree(self, what: str, value: object) -> None:
        """Raises ValueError if it is not the same in all processes."""
        if any(other != value for other in self.gather([value])):
            raise ValueError(f"the processes have different {what}: give all machines the same")

    def gather(self, parts: list) -> list:
        """What all processes found, if the first has parts 0, m, 2m, ... of it and so on."""
        if self.size == 1:
            return parts
        found: list = [None] * self.size
        distributed.all_gather_object(found, parts)
        return [part for several in zip_longest(*found) for part in several if part is not None]


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """Join the processes that torchrun started beside this one, if it did.

    Raises ValueError if one of the others is lost.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        yield ALONE
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        distributed.init_process_group(backend, timeout=SILENCE)
        yield Ranks(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error).lower():
            raise
        what = str(error).strip().partition("\n")[0]
        raise ValueError(f"another process was lost, start again to go on ({what:.200})") from None
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
