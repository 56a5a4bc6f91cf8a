"""Where a run computes: the device, the precision of its matrix products, its memory."""

from __future__ import annotations

import os
import platform
import resource

import torch

from mpdit.errors import ConfigError


def prepare(precision: str, local_rank: int = 0) -> torch.device:
    """This process's device, set to compute deterministically in ``precision``.

    Raises:
        ConfigError: when the device has no such precision.
    """
    # set before CUDA starts: its matrix products are the same each time only with a fixed workspace
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # which also fills all new memory with NaN, several passes over everything in each step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # weights whose gradients have not begun to flow, as behind a zero gain, have moments of 1e-40:
    # arithmetic on such numbers takes ten times as long on many CPUs. Threads inherit it at birth
    torch.set_flush_denormal(True)
    set_precision(precision, "train.precision")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # one GPU alone is the only one visible to a process that Slurm has bound to it
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def set_precision(precision: str, key: str) -> None:
    """Compute matrix products and convolutions in ``precision`` (bfloat16 is autocast's, over
    float32).

    Raises:
        ConfigError: about ``key``, when the device has no such precision.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # on, unless told otherwise
    ampere = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    if precision == "tf32" and not ampere:
        raise ConfigError(
            "tf32 needs an NVIDIA GPU of the Ampere generation or later; "
            "float32 and bfloat16 run everywhere",
            key,
        )


def device_name(device: torch.device) -> str:
    """As its maker calls it; a CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> float:
    """The most that this process has had at once, MiB: of the GPU's memory, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
