"""The processes that train one run: this process's rank, and the exchange between them.

Each process has one device and takes its rank's shard of every batch. Random numbers are drawn for
the whole batch, so the number of processes changes only the order of sums. Rank 0 writes.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from submitit.helpers import TorchDistributedEnvironment
from torch import Tensor

from mpdit.errors import ConfigError
from mpdit.runtime.interfaces import interface_to

BACKEND = "MPDIT_BACKEND"
"""The environment variable that overrides the backend: gloo lets processes share one GPU."""


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
        return self.largest_each(value)[0]

    def largest_each(self, *values: int) -> list[int]:
        """Return for each value the largest of all processes; every process must call this."""
        if self.size == 1:
            return list(values)
        held = torch.tensor(values)  # on the CPU: no wait for the device
        dist.all_reduce(held, dist.ReduceOp.MAX)
        return held.tolist()

    def add_up(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values


@contextmanager
def join() -> Iterator[World]:
    """Connect to the other processes that torchrun, or submitit under Slurm, has started.

    A process that has not called `leave` before is disconnected at the end.

    Raises:
        ConfigError: when $MPDIT_BACKEND is no backend.
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
    # NVLink's own reduction (NVLS) adds in another order from call to call (NVIDIA/nccl#1497)
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    if "GLOO_SOCKET_IFNAME" not in os.environ:
        several = int(os.environ.get("LOCAL_WORLD_SIZE", size)) < size
        interface = interface_to(os.environ["MASTER_ADDR"], several_machines=several)
        if interface is not None:
            os.environ["GLOO_SOCKET_IFNAME"] = interface
    dist.init_process_group(_backend())
    try:
        yield World(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", 0)))
    finally:
        leave()


def _backend() -> str:
    wanted = os.environ.get(BACKEND, "nccl" if torch.cuda.is_available() else "gloo")
    backends = {"gloo": "gloo", "nccl": "cpu:gloo,cuda:nccl"}
    if wanted not in backends:
        raise ConfigError(f"{wanted!r} is not one of {', '.join(backends)}", f"${BACKEND}")
    return backends[wanted]


def check_devices(world: World, device: torch.device) -> None:
    """Check, where processes use NCCL, that no two have the same GPU, which NCCL refuses.

    Raises:
        ConfigError: in every process, naming the GPU and its processes.
    """
    if world.size == 1 or device.type != "cuda" or "nccl" not in dist.get_backend_config():
        return
    own = socket.gethostname(), str(torch.cuda.get_device_properties(device).uuid)
    places: list[tuple[str, str]] = [own] * world.size
    dist.all_gather_object(places, own)  # over gloo: NCCL has not started
    ranks = defaultdict(list)
    for rank, place in enumerate(places):
        ranks[place].append(rank)
    for (host, uuid), sharing in ranks.items():
        if len(sharing) > 1:
            listed = f"{', '.join(map(str, sharing[:-1]))} and {sharing[-1]}"
            raise ConfigError(
                f"processes {listed} have the same GPU ({uuid} of {host}), which NCCL refuses. "
                f"Start one process for each GPU, or set {BACKEND}=gloo to test several on one"
            )


def leave() -> None:
    """Disconnect from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def abort() -> None:
    """Disconnect without waiting for the other processes.

    Their next exchange then fails. `leave` would wait in NCCL for data that they have not sent.
    """
    if dist.is_initialized() and "nccl" in dist.get_backend_config():
        dist.distributed_c10d._abort_process_group()
    else:
        leave()
