"""Checkpoints: hashed while written aside, synced, renamed. Damaged ones are skipped.

Beside each ``step_00001000.pt`` lies ``step_00001000.json`` with its SHA-256, and the run and data
that it belongs to. The checksum is renamed first, so a checkpoint under its final name is whole,
whenever writing was interrupted.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

import torch

from mpdit.disk import lease
from mpdit.disk.files import make_folder, written_aside
from mpdit.disk.identity import Mark, parse_mark
from mpdit.disk.jsontext import parse_json

KEPT = 2  # the newest, and the one to fall back on when it is damaged


def save(
    folder: Path,
    step: int,
    payload: dict[str, Any],
    mark: Mark | None = None,
    *,
    read_back: bool = True,
) -> None:
    """Write ``step_00001000.pt`` and its checksum, then delete all but the newest two.

    Args:
        mark: the run and data that it belongs to; it is written beside the checksum.
        read_back: whether the file is compared with its checksum now. Training leaves that to the
            resume, which falls back on the checkpoint before.

    Raises:
        OSError: when the disk is full, or the content read back differs from what was written;
            older checkpoints are kept.
        LeaseLostError: likewise, when another process has taken over the run.
    """
    make_folder(folder)
    file = folder / f"step_{step:08d}.pt"
    with written_aside(file) as temporary:
        digest = _write(temporary, payload)
        if read_back and _sha256(temporary) != digest:
            raise OSError(errno.EIO, "the content read back differs from the content written")
        with written_aside(file.with_suffix(".json")) as checksum:
            about = {"step": step, "sha256": digest} | ({"identity": mark} if mark else {})
            checksum.write_text(json.dumps(about))
    # later checkpoints are damaged, or training would not have returned to this step
    steps = _kept(folder, file.stem)
    # and leftovers of an interrupted save
    _remove(folder, [other for other in folder.glob("*step_*") if other.stem not in steps])


def sweep(folder: Path, step: int) -> None:
    """Remove leftovers of an interrupted `save`, but the newest two checkpoints up to ``step``.

    Checkpoints past ``step`` are damaged, and stay until they are overwritten.
    """
    last = f"step_{step:08d}"
    steps = _kept(folder, last)
    found = folder.glob("step_*")
    _remove(folder, [other for other in found if other.stem <= last and other.stem not in steps])


def has_averages(state: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's averages are those of its run: training wrote it, not a conversion."""
    return "rows" in state


def newest_mark(folder: Path) -> tuple[Path, Mark] | None:
    """The newest checkpoint that says which run and data it belongs to, and its mark."""
    for file in sorted(folder.glob("step_*.pt"), reverse=True):
        with suppress(OSError):
            mark = parse_mark(file.with_suffix(".json").read_bytes()).get("identity")
            if isinstance(mark, dict):
                return file, mark
    return None


def _kept(folder: Path, last: str) -> list[str]:
    """The stems of the newest two checkpoints up to that of stem ``last``."""
    return sorted(file.stem for file in folder.glob("step_*.pt") if file.stem <= last)[-KEPT:]


def _remove(folder: Path, old: list[Path]) -> None:
    lease.check(folder)  # after listing: files that a new owner writes are not among them
    for file in old:
        file.unlink(missing_ok=True)


def load_newest(
    folder: Path, device: torch.device, warn: Callable[[str], None]
) -> dict[str, Any] | None:
    """Return the newest whole checkpoint, or None; ``warn`` gets the names of damaged ones."""
    files = sorted(folder.glob("step_*.pt"), reverse=True)
    for file in files:
        if reason := _damage(file):
            warn(f"checkpoint {file} {reason}; skipping it")
            continue
        try:
            payload: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
        except pickle.UnpicklingError:  # whose text recommends loading it anyway
            warn(f"checkpoint {file} holds more than tensors and plain values; skipping it")
            continue
        return payload
    if files:
        warn(f"no whole checkpoint is left in {folder}: training starts over")
    return None


def _damage(file: Path) -> str | None:
    """Return why a checkpoint cannot be used, or None when it is whole."""
    try:
        expected = parse_json(file.with_suffix(".json").read_bytes())["sha256"]
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
    """Hash the content on the disk, not in the page cache."""
    with file.open("rb") as handle:
        if hasattr(os, "posix_fadvise"):  # macOS has none
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(handle, "sha256").hexdigest()
