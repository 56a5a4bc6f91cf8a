"""Many processes for one run: which one this is, and what they agree on.

Each process has one device and takes its share of every batch; what is random is drawn for the
whole batch, so the number of processes changes the order of sums and nothing else. Process 0
writes.
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
        rank, size: this process's number, of how many; alone, it is 0 of 1.
        local_rank: its number among those on the same machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """This process's part of ``count`` things; shares differ by one at most."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def largest(self, value: int) -> int:
        """The largest of all processes' values; every process has to ask."""
        if self.size == 1:
            return value
        held = torch.tensor(value)  # on the CPU: the device is not waited for
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return int(held)

    def add_up(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


@contextmanager
def join() -> Iterator[World]:
    """This process's place, as torchrun's environment or submitit's under Slurm says; connected.

    Left at the end by whoever has not left before (`leave`).
    """
    if os.environ.get("SUBMITIT_EXECUTOR") == "slurm" and "RANK" not in os.environ:
        place = TorchDistributedEnvironment()
        # srun runs where rank 0 does, and its address needs no name service
        place.master_addr = os.environ.get("SLURM_LAUNCH_NODE_IPADDR", place.master_addr)
        # all of a node's GPUs stay visible, as torchrun has it: the local rank picks one
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
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()
