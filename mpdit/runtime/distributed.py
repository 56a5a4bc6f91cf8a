"""Several processes that train one run: this one's rank, and what they exchange.

Each process has one device and takes its rank's shard of every batch. Random numbers are drawn for
the whole batch, so the number of processes changes only the order of sums. Rank 0 writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from submitit.helpers import TorchDistributedEnvironment
from torch import Tensor


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank, size: this process's number, and how many there are; alone, 0 of 1.
        local_rank: its number among the processes on the same machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this rank's shard of ``count`` items; shards differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def largest(self, value: int) -> int:
        """Return the largest of all processes' values; every process must call this."""
        if self.size == 1:
            return value
        held = torch.tensor(value)  # on the CPU: no wait for the device
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def add_up(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


@contextmanager
def join() -> Iterator[World]:
    """Connect to the other processes that torchrun, or submitit under Slurm, has started.

    A process that has not called `leave` before is disconnected at the end.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and "RANK" not in os.environ:
        place = TorchDistributedEnvironment()
        # srun runs where rank 0 does, and its address needs no name service
        place.master_addr = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", place.master_addr)
        # all GPUs of a node stay visible, as under torchrun: the local rank picks one
        place.export(set_cuda_visible_devices=False)
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield World()
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield World(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", 0)))
    finally:
        leave()


def leave() -> None:
    """Disconnect from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
