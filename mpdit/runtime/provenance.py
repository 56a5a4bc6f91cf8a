"""The origin of a run's numbers: code, packages and machine, one entry for each start."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import socket
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import mpdit
from mpdit.disk import codefiles
from mpdit.disk.files import write_atomic, written_aside
from mpdit.disk.jsontext import parse_json
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.runtime.devices import device_name, gpu_details

PACKAGES = ("torch", "numpy", "torch-fidelity", "safetensors", "scikit-learn", "pydantic")


def record_start(run: RunDir, device: torch.device, processes: int) -> dict[str, Any]:
    """Append this start to provenance.json, and store an uncommitted diff beside it.

    The number of threads is that of the first start. Sums are split by thread, and a resumed run
    must add in the same order to get the same bits.

    Returns:
        the entry written.

    Raises:
        ConfigError: when the file is damaged.
    """
    file = run.path / "provenance.json"
    try:
        starts = parse_json(file.read_bytes())["starts"] if file.exists() else []
        threads = int(starts[0]["threads"] if starts else os.environ.get("MPDIT_THREADS", 0))
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{file} is damaged. It held the number of threads, which a resumed run needs for the "
            "same bits. Delete the file to resume without it"
        ) from None
    files = codefiles.code_files(copy.read_bytes() for copy in run.path.glob("extensions/*.py"))
    origin = codefiles.origin(files)
    diff = origin["diff"]
    diff_sha = hashlib.sha256(diff.encode()).hexdigest()[:16] if diff else None
    if diff_sha:
        write_atomic(run.path / f"uncommitted-{diff_sha}.diff", diff)
    entry = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "version": mpdit.__version__,
        "code": origin["commit"],
        "diff_sha": diff_sha,
        "untracked": origin["untracked"],
        "submodules": origin["submodules"],
        "code_hash": codefiles.digest(codefiles.executed(files)),
        "code_snapshot": codefiles.ROOT.name if codefiles.is_snapshot() else None,
        "imported_from": str(codefiles.ROOT),
        "checkout": origin["checkout"],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "host": socket.gethostname(),
        "device": device_name(device),
        "gpu": gpu_details(device),
        "processes": processes,
        "threads": threads or torch.get_num_threads(),
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    _write(file, [*starts, entry])
    return entry


def record_missing_rows(run: RunDir, lines: list[str]) -> None:
    """Note in provenance.json, at the newest start, which rows were found missing at a resume.

    Nothing is noted of a run that `record_start` has not begun.
    """
    file = run.path / "provenance.json"
    if not file.exists():
        return
    starts = parse_json(file.read_bytes())["starts"]
    starts[-1]["missing_rows"] = [*starts[-1].get("missing_rows", ()), *lines]
    _write(file, starts)


def _write(file: Path, starts: list[dict[str, Any]]) -> None:
    with written_aside(file) as temporary:
        temporary.write_text(json.dumps({"starts": starts}, indent=1))
