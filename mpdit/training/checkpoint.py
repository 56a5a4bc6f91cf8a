"""Checkpoints: written aside, synced, read back, renamed. Damaged ones are skipped.

Beside each ``step_00001000.pt`` lies ``step_00001000.json`` with its SHA-256. The checksum is
renamed first, so a checkpoint under its final name is whole, whenever writing was interrupted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch

from mpdit.disk import lease
from mpdit.disk.files import written_aside

KEPT = 2  # the newest, and the one to fall back on when it is damaged


def save(folder: Path, step: int, payload: dict[str, Any]) -> None:
    """Write ``step_00001000.pt`` and its checksum, then delete all but the newest two.

    Raises:
        OSError: when the disk is full, or the content read back differs from what was written;
            older checkpoints are kept.
        LeaseLostError: likewise, when another process has taken over the run.
    """
    folder.mkdir(exist_ok=True)
    file = folder / f"step_{step:08d}.pt"
    with written_aside(file) as temporary:
        digest = _write(temporary, payload)
        if _sha256(temporary) != digest:
            raise OSError(errno.EIO, "what is read back is not what was written")
        with written_aside(file.with_suffix(".json")) as checksum:
            checksum.write_text(json.dumps({"step": step, "sha256": digest}))
    # later checkpoints are damaged, or training would not have returned to this step
    steps = sorted(other.stem for other in folder.glob("step_*.pt") if other.stem <= file.stem)
    # with the files that an interrupted save has left
    old = [other for other in folder.glob("*step_*") if other.stem not in steps[-KEPT:]]
    lease.check(folder)  # after listing: files that a new owner writes are not among them
    for other in old:
        other.unlink(missing_ok=True)


def load_newest(
    folder: Path, device: torch.device, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the newest whole checkpoint, or None; ``warn`` gets the names of damaged ones."""
    files = sorted(folder.glob("step_*.pt"), reverse=True)
    for file in files:
        if reason := _damage(file):
            warn(f"checkpoint {file} {reason}; skipping it")
            continue
        payload: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        return payload
    if files:
        warn(f"no whole checkpoint is left in {folder}: training starts over")
    return None


def _damage(file: Path) -> str | None:
    """Return why a checkpoint cannot be used, or None when it is whole."""
    try:
        expected = json.loads(file.with_suffix(".json").read_bytes())["sha256"]
        return None if _sha256(file) == expected else "is damaged: it is not what was written"
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "has no checksum: it was not finished"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _write(file: Path, payload: dict[str, Any]) -> str:
    """Write the payload to the disk, and return the SHA-256 of the intended content.

    Raises:
        OSError: with the size of the payload.
    """
    hashed = _Hashed(file.open("wb"))
    try:
        with hashed.file:
            torch.save(payload, cast("IO[bytes]", hashed))  # torch only calls write and flush
            if hashed.error:
                raise hashed.error
            hashed.file.flush()
            os.fsync(hashed.file.fileno())
    except OSError as error:
        needed = f"a checkpoint takes {hashed.size / 1e6:,.1f} MB"
        raise OSError(error.errno, f"{error.strerror}; {needed}") from None
    return hashed.sha256.hexdigest()


class _Hashed:
    """A file that hashes and counts what is written, to the end even when the disk is full.

    An error is stored and raised later: torch would turn it into a RuntimeError without a number.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        self.sha256.update(data)
        self.size += len(data)
        if self.error is None:
            try:
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """Do nothing: the file is flushed once, after the last byte."""


def _sha256(file: Path) -> str:
    """Hash what is on the disk, not what the page cache holds."""
    with file.open("rb") as handle:
        if hasattr(os, "posix_fadvise"):  # macOS has none
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(handle, "sha256").hexdigest()
