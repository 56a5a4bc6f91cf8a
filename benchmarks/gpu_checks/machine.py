"""The machine: installed software, and the device's peak speeds."""

from __future__ import annotations

import platform
import sysconfig
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from gpu_checks.bench import PRECISIONS, Bench
from gpu_checks.frame import Row
from mpdit.errors import ConfigError
from mpdit.model.compiler import check_compiler
from mpdit.peaks import peak_flops
from mpdit.runtime.devices import device_name, gpu_details, multiprocessors

NEEDED = ("pydantic", "jaxtyping", "safetensors", "scikit-learn", "submitit", "torch-fidelity")
OPTIONAL = ("diffusers", "datasets", "tensorboard")


def environment(at: Bench) -> Iterator[Row]:
    """Versions, the data sheet's peak, and the requirements of compilation."""
    name = device_name(at.place)
    yield Row("device", name)
    yield Row("python, torch", f"{platform.python_version()} {torch.__version__}")
    for key, value in gpu_details(at.place).items():
        yield Row(key, str(value), None if value is not None else False)
    peaks = [peak_flops(name, p, multiprocessors(at.place)) for p in PRECISIONS]
    known = all(peaks) if at.cuda else None
    yield Row("peak TFLOP/s float32, tf32, bfloat16", [p and p / 1e12 for p in peaks], known)
    if at.cuda:
        enabled = torch.backends.cuda
        yield Row(
            "flash, efficient, cudnn attention",
            [
                enabled.flash_sdp_enabled(),
                enabled.mem_efficient_sdp_enabled(),
                enabled.cudnn_sdp_enabled(),
            ],
        )
    try:
        check_compiler(at.place)
        yield Row("compiler", "there", ok=True)
    except ConfigError as error:
        yield Row("compiler", str(error), ok=False)
    header = Path(sysconfig.get_paths()["include"], "Python.h")
    yield Row("Python.h", str(header) if header.exists() else "missing")
    for package in (*NEEDED, *OPTIONAL):
        try:
            yield Row(package, version(package), ok=True)
        except PackageNotFoundError:
            yield Row(package, "not installed", None if package in OPTIONAL else False)


def ceilings(at: Bench) -> Iterator[Row]:
    """The speeds of products, copies and launches alone."""
    n = 256 if at.tiny else 8192
    for precision in at.precisions:
        dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        a, b = (torch.randn(n, n, device=at.place, dtype=dtype) for _ in range(2))
        seconds, _ = at.timed(lambda a=a, b=b: a @ b, 10)  # type: ignore[misc]
        yield Row(f"{n}³ product, {precision}, TFLOP/s", 2 * n**3 / seconds / 1e12)
    large = torch.randn(1 << (20 if at.tiny else 29), device=at.place)
    other = torch.empty_like(large)
    seconds, _ = at.timed(lambda: other.copy_(large), 10)
    yield Row("copy on the device, GB/s", 2 * large.nbytes / seconds / 1e9)
    small = torch.zeros(8, device=at.place)
    _, host = at.timed(lambda: [small.add_(1) for _ in range(1000)], 3)
    yield Row("one launch, µs of the host", host * 1e3)
    part = large[: 1 << 18]
    for pinned in (False, True) if at.cuda else (False,):
        target = torch.empty_like(part, device="cpu", pin_memory=pinned)
        seconds, _ = at.timed(lambda t=target: t.copy_(part, non_blocking=True), 5)  # type: ignore[misc]
        kind = "pinned" if pinned else "pageable"
        yield Row(f"copy to {kind} memory, GB/s", part.nbytes / seconds / 1e9)
