"""Resumable state on disk: written aside, synced, summed, renamed; a damaged one is passed over."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mpdit.study.rundir import write_atomic

KEPT = 2  # the newest, and the one to fall back on when it is damaged


def save(folder: Path, step: int, payload: dict[str, Any]) -> None:
    """Write ``step_00001000.pt`` and its checksum, then let go of all but the newest two.

    Raises:
        OSError: when the disk is full; what was there before is untouched.
    """
    folder.mkdir(exist_ok=True)
    file = folder / f"step_{step:08d}.pt"
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("wb") as handle:
            torch.save(payload, handle)
            handle.flush()
            os.fsync(handle.fileno())
        digest = _sha256(temporary)
        temporary.replace(file)
    except (OSError, RuntimeError):  # torch reports a failed write as RuntimeError
        temporary.unlink(missing_ok=True)
        raise
    write_atomic(file.with_suffix(".json"), json.dumps({"step": step, "sha256": digest}))
    files = sorted(folder.glob("step_*.pt"))
    # what lies past this step was damaged, or training would not have come by here again
    kept = files[: files.index(file) + 1][-KEPT:]
    for old in set(files) - set(kept):
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink()


def load_newest(
    folder: Path, device: torch.device, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """The newest whole checkpoint, None when there is none; damaged ones are named to ``warn``."""
    for file in sorted(folder.glob("step_*.pt"), reverse=True):
        try:
            expected = json.loads(file.with_suffix(".json").read_text())["sha256"]
        except (FileNotFoundError, json.JSONDecodeError):
            warn(f"checkpoint {file.name} was not finished; using the one before")
            continue
        if _sha256(file) != expected:
            warn(f"checkpoint {file.name} is damaged; using the one before")
            continue
        payload: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        return payload
    return None


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
