"""The device of a run, the precision of its matrix products, and its memory."""

from __future__ import annotations

import os
import platform
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from mpdit.errors import ConfigError

DRIVER = Path("/proc/driver/nvidia/version")


def prepare(precision: str, local_rank: int = 0) -> torch.device:
    """Return this process's device, set to compute deterministically in ``precision``.

    Raises:
        ConfigError: when the device does not support the precision, or another process has it.
    """
    # before CUDA starts: its matrix products are only reproducible with a fixed workspace
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # use_deterministic_algorithms would also import the compiler, which takes seconds
    torch.set_deterministic_debug_mode("error")
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
    try:
        torch.cuda.set_device(device)
        torch.empty(1, device=device)
    except RuntimeError as error:
        if "busy or unavailable" not in str(error):
            raise
        raise ConfigError(
            f"GPU {device.index} is used by another process. In exclusive compute mode a GPU takes "
            "one process: start CUDA's MPS for several runs on one GPU (runs_per_job), or set the "
            "mode to default (nvidia-smi --compute-mode 0)"
        ) from None
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


@contextmanager
def float32_products() -> Iterator[None]:
    """Compute matrix products and convolutions in float32, whatever the run's precision is.

    Used where no option applies: features of images, and the decoding of latents.
    """
    matmul, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    set_precision("float32", "")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = cudnn


def multiprocessors(device: torch.device) -> int | None:
    """Return the number of multiprocessors of a GPU, or of a slice of one (MIG)."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def gpu_details(device: torch.device) -> dict[str, Any]:
    """Return the details of a GPU on which its numbers depend; nothing for a CPU.

    Training's noise depends on the number of multiprocessors: PyTorch spreads a draw over as many
    threads as they take.
    """
    if device.type != "cuda":
        return {}
    about = torch.cuda.get_device_properties(device)
    details = {
        "uuid": str(about.uuid),
        "multiprocessors": about.multi_processor_count,
        "capability": f"{about.major}.{about.minor}",
        "memory_mb": about.total_memory // 2**20,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "nccl": None,
        "triton": None,
        "driver": None,
    }
    with suppress(RuntimeError, AttributeError):  # a build without NCCL
        details["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    with suppress(PackageNotFoundError):
        details["triton"] = version("triton")
    with suppress(OSError):
        if found := re.search(r"Module\S*\s+(?:for \S+\s+)?(\d+\.[\d.]+)", DRIVER.read_text()):
            details["driver"] = found[1]
    return details


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
