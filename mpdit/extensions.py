"""A user's own file as part of the package: it registers flags, parts, data sets, metrics, ….

A grid names the file (``extensions: [ideas/sigmoid_attention.py]``); executing it adds rows to the
tables of `mpdit.catalogue`. A run that uses one of the rows has the file's SHA-256 in its config,
and with it in its identity, keeps a copy of the file, and executes that copy.
"""

from __future__ import annotations

import hashlib
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel, ConfigDict

from mpdit.catalogue import TABLES
from mpdit.catalogue.registry import Row, declared, recorded
from mpdit.errors import ConfigError
from mpdit.text import one_line

MAX_BYTES = 1_000_000

_MODULE = "mpdit_extension_"
"""The beginning of the name of an extension's module, by which its code is known."""


class Extension(BaseModel):
    """An extension as a config records it.

    ``adds``: table → name → the row's facts, so that a config can be read, and a study listed and
    analysed, without executing the file.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    name: str
    """The file's name without its ending."""
    sha256: str
    adds: dict[str, dict[str, dict[str, Any]]]

    def __hash__(self) -> int:
        return hash(self.sha256)

    def names(self, table: str) -> frozenset[str]:
        """The names that it adds to a table of `mpdit.catalogue.TABLES`."""
        return frozenset(self.adds.get(table, {}))


_sources: dict[str, bytes] = {}
"""SHA-256 → content, of the files that this process has executed."""
_loaded: dict[str, Extension] = {}
"""Name → the extension as it is loaded now."""


def load(file: Path) -> Extension:
    """Execute an extension once for each content; new content replaces the rows of the former.

    Raises:
        ConfigError: when it cannot be read or executed, or registers a name that is taken, naming
            the file and the line.
    """
    try:
        source = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the extension {file}: {error.strerror}") from None
    if len(source) > MAX_BYTES:
        raise ConfigError(f"the extension {file} is larger than {MAX_BYTES:,} bytes")
    digest = hashlib.sha256(source).hexdigest()
    name = file.stem
    if name in _loaded:
        if _loaded[name].sha256 == digest:
            return _loaded[name]
        unload(name)
    with recorded(str(file)) as recording:
        _execute(file, source, _MODULE + name)
    kinds = {id(table): kind for kind, table in TABLES.items()}
    adds: dict[str, dict[str, dict[str, Any]]] = {}
    for rows, row in recording.rows:
        adds.setdefault(kinds[id(rows)], {})[row.name] = row.recorded()
    if not adds:
        raise ConfigError(f"the extension {file} registers nothing: see docs/adding.md")
    extension = Extension(name=name, sha256=digest, adds=adds)
    _sources[digest] = source
    _loaded[name] = extension
    return extension


def unload(name: str) -> None:
    """Remove the rows of a loaded extension."""
    for table, added in _loaded.pop(name).adds.items():
        for row in added:
            TABLES[table].remove(row)


def loaded() -> tuple[str, ...]:
    """The names of the extensions that this process has loaded."""
    return tuple(_loaded)


def _execute(file: Path, source: bytes, name: str) -> None:
    module = ModuleType(name)
    module.__file__ = str(file)
    sys.modules[name] = module  # where dataclasses and pickle look for it
    try:
        exec(compile(source, str(file), "exec"), module.__dict__)
    except SyntaxError as error:
        raise ConfigError(f"{file}:{error.lineno}: not Python: {error.msg}") from None
    except ConfigError as error:
        where = f"{file}:{_line(file, error)}: "
        raise ConfigError(str(error) if str(file) in str(error) else where + str(error)) from None
    except (Exception, SystemExit) as error:
        kind = type(error).__name__
        raise ConfigError(f"{file}:{_line(file, error)}: {kind}: {error}") from None


def _line(file: Path, error: BaseException) -> int:
    """The line of the extension in which an error arose."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f.lineno or 0 for f in reversed(frames) if f.filename == str(file)), 0)


def explained(error: Exception) -> str | None:
    """An error's file, line and message where an extension's function raised it or called what
    did; None for other errors."""
    frames = [
        f"{frame.f_code.co_filename}:{line}"
        for frame, line in traceback.walk_tb(error.__traceback__)
        if frame.f_globals.get("__name__", "").startswith(_MODULE)
    ]
    said = one_line("".join(traceback.format_exception_only(error)), 1000)
    return f"{frames[-1]}: {said}" if frames else None


@contextmanager
def blamed(where: str = "") -> Iterator[None]:
    """Turn an error in an extension's code into one message, which ends with ``where``.

    Raises:
        ConfigError: in place of such an error; it names the file and the line.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        if (message := explained(error)) is None:
            raise
        raise ConfigError(message + where) from None


def source_of(extension: Extension) -> bytes:
    """The content of an extension that this process has executed."""
    return _sources[extension.sha256]


def copy_file(folder: Path, extension: Extension) -> Path:
    """The path of a run's or a study's copy of an extension."""
    return folder / "extensions" / f"{extension.name}.py"


def load_copies(folder: Path, extensions: Iterable[Extension]) -> None:
    """Execute a run's own copies.

    Raises:
        ConfigError: when one is missing, or has changed since the run was made, or as `load`.
    """
    for extension in extensions:
        file = copy_file(folder, extension)
        if not file.is_file():
            raise ConfigError(
                f"{file} is missing: the run uses {_listed(extension)} of it. Submit the grid again"
            )
        if hashlib.sha256(file.read_bytes()).hexdigest() != extension.sha256:
            raise ConfigError(
                f"{file}:1: changed since the run was made (its config.yaml has SHA-256 "
                f"{extension.sha256[:12]}…). Restore the file, or submit the grid with the changed "
                "extension, which makes new runs"
            )
        load(file)


def _listed(extension: Extension) -> str:
    return ", ".join(name for rows in extension.adds.values() for name in rows)


def reading(extensions: Iterable[Extension]) -> AbstractContextManager[None]:
    """Add the rows of these extensions to the tables meanwhile, without code (`declared`)."""
    rows: dict[str, dict[str, Row]] = {}
    for extension in extensions:
        if (loaded := _loaded.get(extension.name)) and loaded.sha256 == extension.sha256:
            continue
        for kind, added in extension.adds.items():
            table = TABLES[kind]
            of_kind = {
                name: table.row_type.from_record(name, facts) for name, facts in added.items()
            }
            rows.setdefault(table.kind, {}).update(of_kind)
    return declared(rows)


def used(
    extensions: Iterable[Extension], names: Mapping[str, frozenset[str]]
) -> tuple[Extension, ...]:
    """The extensions that add one of these names (table → names), in the order of their names."""
    found = {
        one.name: one
        for one in extensions
        if any(one.names(table) & of_config for table, of_config in names.items())
    }
    return tuple(found[name] for name in sorted(found))
