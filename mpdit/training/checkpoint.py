"""Resumable state on disk: written aside, synced, read back, renamed; a damaged one is passed over.

Beside each ``step_00001000.pt`` lies ``step_00001000.json`` with its SHA-256. The checksum gets its
name first, so a checkpoint that has its own name is whole, whenever the writing was broken off.
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
    """Write ``step_00001000.pt`` and its checksum, then let go of all but the newest two.

    Raises:
        OSError: when the disk is full, or what is read back is not what was written; what was there
            before is untouched.
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
    # what lies past this step was damaged, or training would not have come by here again
    steps = sorted(other.stem for other in folder.glob("step_*.pt") if other.stem <= file.stem)
    # what an interrupted save has left, too
    old = [other for other in folder.glob("*step_*") if other.stem not in steps[-KEPT:]]
    lease.check(folder)  # once these are known: what a new owner will write is not among them
    for other in old:
        other.unlink(missing_ok=True)


def load_newest(
    folder: Path, device: torch.device, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """The newest whole checkpoint, None when there is none; damaged ones are named to ``warn``."""
    files = sorted(folder.glob("step_*.pt"), reverse=True)
    for file in files:
        if reason := _damage(file):
            warn(f"checkpoint {file} {reason}; it is passed over")
            continue
        payload: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        return payload
    if files:
        warn(f"no whole checkpoint is left in {folder}: training starts over")
    return None


def _damage(file: Path) -> str | None:
    """Why a checkpoint cannot be used, None when it is whole."""
    try:
        expected = json.loads(file.with_suffix(".json").read_bytes())["sha256"]
        return None if _sha256(file) == expected else "is damaged: it is not what was written"
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return "has no checksum: it was not finished"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _write(file: Path, payload: dict[str, Any]) -> str:
    """Put the payload on the disk, and return the SHA-256 of what was meant to be there.

    Raises:
        OSError: saying what the payload takes.
    """
    hashed = _Hashed(file.open("wb"))
    try:
        with hashed.file:
            torch.save(payload, cast("IO[bytes]", hashed))  # it writes and flushes, no more
            if hashed.error:
                raise hashed.error
            hashed.file.flush()
            os.fsync(hashed.file.fileno())
    except OSError as error:
        needed = f"a checkpoint takes {hashed.size / 1e6:,.1f} MB"
        raise OSError(error.errno, f"{error.strerror}; {needed}") from None
    return hashed.sha256.hexdigest()


class _Hashed:
    """A file that is hashed and counted on its way to the disk, to the end when the disk is full.

    An error is kept for afterwards: torch would make a RuntimeError of it, without a number.
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
        """The file is flushed once, after the last byte."""


def _sha256(file: Path) -> str:
    """Of what is on the disk, rather than of what memory still holds of it."""
    with file.open("rb") as handle:
        if hasattr(os, "posix_fadvise"):  # macOS has none
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(handle, "sha256").hexdigest()
