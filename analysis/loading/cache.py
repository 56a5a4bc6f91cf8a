"""A cache of parsed rows of many runs' files, which never returns stale rows.

A file is parsed again unless its inode, size and times of change are the same as when it was read.
A file that changed in the last seconds is not cached, so the rows of a running run always come from
its file (`mpdit.disk.stamp`). The rows are stored in the cache folder, so a read-only study loads
as fast as others.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from mpdit.disk.cachefolder import cache_folder
from mpdit.disk.stamp import Stamp


class Piece(NamedTuple):
    """Consecutive rows of a table: the rows of one file."""

    table: pa.Table
    start: int
    rows: int


@dataclass(frozen=True)
class Kind:
    """How a kind of file is parsed and cached.

    Attributes:
        name: the file's name in every run's folder.
        schema: the first columns, which always exist.
        parse: the files' contents → the rows of each file, None if it is damaged.
        worth_keeping: bytes; caching less than this would save no time.
        version: version of the code of ``parse``.
    """

    name: str
    schema: pa.Schema
    parse: Callable[[list[bytes]], list[Piece | None]]
    worth_keeping: int
    version: str

    @property
    def format(self) -> str:
        """A text that changes with the columns and with the code of ``parse``."""
        return f"{self.version} {self.schema}"


@dataclass(frozen=True)
class Rows:
    """The rows of several files, in the files' order.

    Attributes:
        counts: rows of each file; 0 if it is missing, empty or damaged.
        damaged: the indices of files that could not be parsed.
        unreadable: the indices of files that only another user may read.
    """

    table: pa.Table
    counts: list[int]
    damaged: list[int]
    unreadable: list[int]


def read(study: Path, runs: Sequence[str], kind: Kind) -> Rows:
    """Return the current rows of one file of each run; a missing file has no rows."""
    store = _store(study, kind)
    kept = _open(store, kind)
    pieces: dict[int, Piece] = {}
    stamps: dict[int, Stamp] = {}
    texts: dict[int, bytes] = {}
    unreadable: list[int] = []
    for index, run in enumerate(runs):
        file = study / run / kind.name
        with (
            suppress(FileNotFoundError, NotADirectoryError),
            _noting(unreadable, index),
            file.open("rb") as handle,
        ):
            # read before the content, so that rows appended meanwhile do not count as read
            stamp = Stamp.of(os.fstat(handle.fileno()))
            known, piece = kept.get(run, (None, None))
            if piece is not None and known == stamp:
                pieces[index] = piece
            else:
                texts[index] = handle.read()
            if stamp.settled:
                stamps[index] = stamp
    parsed = dict(zip(texts, kind.parse(list(texts.values())), strict=True))
    pieces |= {index: piece for index, piece in parsed.items() if piece is not None}
    order = sorted(pieces)
    lasting = [index for index in order if index in stamps]
    if sum(len(texts.get(index, b"")) for index in lasting) >= kind.worth_keeping:
        table = join([pieces[index] for index in lasting], kind.schema)
        _keep(store, kind, table, [(runs[i], stamps[i], pieces[i].rows) for i in lasting])
    return Rows(
        table=join([pieces[index] for index in order], kind.schema),
        counts=[pieces[index].rows if index in pieces else 0 for index in range(len(runs))],
        damaged=[index for index, piece in parsed.items() if piece is None],
        unreadable=unreadable,
    )


@contextmanager
def _noting(unreadable: list[int], index: int) -> Iterator[None]:
    """Record a file that this user may not read, and continue without it."""
    try:
        yield
    except PermissionError:
        unreadable.append(index)


def join(pieces: Sequence[Piece], schema: pa.Schema) -> pa.Table:
    """Join pieces into one table. Adjacent pieces of the same table are not split."""
    joined = [Piece(schema.empty_table(), 0, 0)]
    for piece in pieces:
        last = joined[-1]
        if piece.table is last.table and piece.start == last.start + last.rows:
            joined[-1] = Piece(last.table, last.start, last.rows + piece.rows)
        else:
            joined.append(piece)
    return pa.concat_tables(
        [piece.table.slice(piece.start, piece.rows) for piece in joined],
        promote_options="default",
    )


def _store(study: Path, kind: Kind) -> Path:
    digest = hashlib.sha256(os.fsencode(study.resolve())).hexdigest()[:16]
    return cache_folder() / "analysis" / f"{digest}-{Path(kind.name).stem}.arrow"


def _open(store: Path, kind: Kind) -> Mapping[str, tuple[Stamp, Piece]]:
    """Return the cached rows: run → the file's stamp when it was read, and its rows."""
    try:
        table = pa.ipc.open_file(pa.py_buffer(store.read_bytes())).read_all()
        kept = json.loads(table.schema.metadata[b"files"])
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
        return {}  # missing, cut short, or not written by this module
    if kept["format"] != kind.format:
        return {}
    table = table.replace_schema_metadata(None)
    found, start = {}, 0
    for run, stamp, count in kept["files"]:
        found[run] = (Stamp(*stamp), Piece(table, start, count))
        start += count
    return found


def _keep(store: Path, kind: Kind, table: pa.Table, files: list[tuple[str, Stamp, int]]) -> None:
    """Replace the cached rows, if the cache is writable."""
    metadata = {b"files": json.dumps({"format": kind.format, "files": files}).encode()}
    table = table.combine_chunks().replace_schema_metadata(metadata)
    with suppress(OSError):
        store.parent.mkdir(parents=True, exist_ok=True)
        # a unique name, because two processes may load the same study
        with tempfile.TemporaryDirectory(dir=store.parent) as folder:
            file = Path(folder) / store.name
            with pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
            file.replace(store)
