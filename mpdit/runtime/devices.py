"""The device of a run, the precision of its matrix products, and its memory."""

from __future__ import annotations

import os
import platform
import resource

import torch

from mpdit.errors import ConfigError


def prepare(precision: str, local_rank: int = 0) -> torch.device:
    """Return this process's device, set to compute deterministically in ``precision``.

    Raises:
        ConfigError: when the device does not support the precision.
    """
    # before CUDA starts: its matrix products are only reproducible with a fixed workspace
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # it would also fill all new memory with NaN: several passes over it in each step
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    # Adam's moments are about 1e-40 for weights without a gradient yet, as behind a zero gain. Such
    # numbers are ten times slower on many CPUs. New threads inherit this setting
    torch.set_flush_denormal(True)
    set_precision(precision, "train.precision")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # a process that Slurm has bound to one GPU sees only that one
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def set_precision(precision: str, key: str) -> None:
    """Compute matrix products and convolutions in ``precision``; bfloat16 is left to autocast.

    Raises:
        ConfigError: about ``key``, when the device does not support the precision.
    """
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"  # PyTorch's default is on
    ampere = torch.cuda.is_available() and torch.cuda.get_device_capability()[0] >= 8
    if precision == "tf32" and not ampere:
        raise ConfigError(
            "tf32 needs an NVIDIA GPU of the Ampere generation or later; "
            "float32 and bfloat16 run everywhere",
            key,
        )


def device_name(device: torch.device) -> str:
    """Return the maker's name of a GPU, or a CPU's architecture."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def peak_memory_mb(device: torch.device) -> float:
    """Return this process's peak memory in MiB: allocated on the GPU, or resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
