"""Files that are replaced as a whole, or that rows are appended to.

A write into a run whose lease this process has lost is refused (see ``lease``).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mpdit.disk import lease as leases
from mpdit.disk import links
from mpdit.disk.jsontext import parse_json

log = logging.getLogger("mpdit")

_ANY_ROW = TypeAdapter(dict[str, Any])


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait for an exclusive lock on ``file`` and hold it; do nothing where locks do not exist."""
    links.check(file)
    with file.open("a") as handle:
        leases.lock(handle, fcntl.LOCK_EX)
        yield


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, unless they exist.

    Raises:
        ConfigError: when one of them is a link (`links`).
    """
    links.check(folder)
    folder.mkdir(parents=True, exist_ok=True)


def new_aside(file: Path) -> Path:
    """Create an empty file of a random name beside ``file``, and return its path.

    In a run that this process has leased, the name ends in ``.tmp``, and the run's next owner
    removes leftovers (`lease`); elsewhere it ends in ``.part``, and `lease.sweep` removes them.

    Raises:
        ConfigError: when the file or a folder on the way is a link (`links`).
    """
    links.check(file)
    suffix = "part" if leases.lease_of(file) is None else "tmp"
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}.{suffix}")
    temporary.touch(exist_ok=False)  # O_EXCL
    return temporary


@contextmanager
def written_aside(file: Path, *, sync: bool = True) -> Iterator[Path]:
    """Yield a path to write to. It becomes ``file`` when no error is raised.

    A reader sees the old or the new content, never a part of one. With ``sync`` that also holds
    after a power failure.

    Raises:
        OSError: when writing fails, with the name of ``file``, whose old content is kept.
        LeaseLostError: likewise, when the file is in a run that this process has lost.
    """
    with _naming(file):
        temporary = new_aside(file)
        try:
            yield temporary
            if sync:
                sync_path(temporary)
            leases.check(file)
            temporary.replace(file)
            if sync:
                sync_path(file.parent)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, OSError):
                leases.check(file)  # the new owner may have caused an orphan's error
            raise


def write_atomic(file: Path, content: str | bytes) -> None:
    """Replace ``file``; a reader sees the old or the new content, never a part of one."""
    with written_aside(file, sync=False) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_path(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_row(file: Path, row: dict[str, Any]) -> None:
    """Append one JSON line, after dropping the torn last line of an interrupted write.

    Raises:
        OSError: with the name of the file.
        LeaseLostError: when it is in a run that this process has lost.
    """
    links.check(file)
    with _naming(file), file.open("a+b") as handle:
        leases.check(file)
        end = handle.seek(0, os.SEEK_END)
        if end and (handle.seek(end - 1), handle.read(1))[1] != b"\n":
            handle.seek(0)
            handle.truncate(handle.read().rfind(b"\n") + 1)
        handle.write(json.dumps(row).encode() + b"\n")


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Add the file's name to an OSError: one that a write raises has none."""
    try:
        yield
    except OSError as error:
        error.filename = str(file)
        raise


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON-lines file, without a torn last line. A missing file has none.

    Damaged lines are left out, with a warning.
    """
    rows, damaged = scan_rows(file)
    if damaged:
        warn_once(f"{file}: {said_of(damaged)} damaged and counted as absent")
    return rows


def scan_rows(
    file: Path, kind: TypeAdapter[Any] = _ANY_ROW
) -> tuple[list[dict[str, Any]], list[int]]:
    """Read the rows of a JSON-lines file, and the numbers of its damaged lines.

    Args:
        kind: the type that a row must have.
    """
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return [], []
    rows, damaged = [], []
    for number, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            rows.append(kind.validate_python(parse_json(line)))
        except ValueError:
            damaged.append(number)
    return rows, damaged


def said_of(damaged: list[int]) -> str:
    """Return ``line 3 is``, or ``lines 3, 7, 8 and 12 more are``."""
    if len(damaged) == 1:
        return f"line {damaged[0]} is"
    more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    return f"lines {', '.join(map(str, damaged[:3]))}{more} are"


@cache
def warn_once(message: str) -> None:
    """Log a warning the first time only: readers read the same file many times."""
    log.warning(message)


def keep_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace the rows of a JSON-lines file (after a resume: without those past its step)."""
    with written_aside(file) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
