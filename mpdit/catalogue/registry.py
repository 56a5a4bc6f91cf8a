"""Tables of rows by name, and the decorators that add a row.

A row describes one item, such as a flag or a metric: its name, its effect in words, its source, its
requirements, and where its code is. Everything else (grid keys, run names, docs, checks,
evaluation, report) is made from the row. The package's tables and a user's extensions add rows in
the same way.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar

from mpdit.errors import ConfigError, nearest

Code = Callable[..., Any] | str
"""A function or class, or its place (``package.module:name``), so that rows need no torch."""


def load_code(code: Code) -> Any:
    """The function or class itself; this imports its module.

    Raises:
        ConfigError: when the module does not exist, or has no such name.
    """
    if not isinstance(code, str):
        return code
    module, _, name = code.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ConfigError(f"cannot load {code}: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Row:
    """One item of a table.

    Attributes:
        name: as a grid spells it.
        does: its effect, in words.
        source: paper and equation, or where the data come from.
        implementation: its code, as the row's subclass describes; None if a layer or another
            module implements the name.
        origin: who added it: ``mpdit``, or an extension's file and line.
    """

    facts: ClassVar[tuple[str, ...]] = ()
    """The fields needed to read a config without executing its extensions."""

    name: str
    does: str = ""
    source: str = ""
    implementation: Code | None = None
    origin: str = "mpdit"

    def load(self) -> Any:
        """The implementation itself; this imports its module."""
        assert self.implementation is not None, f"{self.name} has no implementation"
        return load_code(self.implementation)

    def check_against(self, others: Mapping[str, Self]) -> None:
        """Check the row against the others of its table; raise ConfigError for a conflict."""

    def recorded(self) -> dict[str, Any]:
        """The recorded fields, as plain values for YAML."""
        return {name: getattr(self, name) for name in self.facts}

    @classmethod
    def from_record(cls, name: str, facts: Mapping[str, Any]) -> Self:
        """The row without its code."""
        return cls(name=name, **facts)


R = TypeVar("R", bound=Row)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""Names become keys of YAML and parts of run names and folders."""

_declared: ContextVar[Mapping[str, Mapping[str, Row]]] = ContextVar(
    "declared", default=MappingProxyType({})
)


class Registry(Generic[R], Mapping[str, R]):
    """The rows of one kind, by name: the package's in their order, then the others by name.

    The order of added rows must not depend on the order in which extensions are loaded, because it
    is the order of flags and metrics in a run's identity, and of conditioning parts in the model.

    Args:
        kind: the noun for a row.
        key: the config's key that takes the names.
        rows: the package's own.
        note: how the key is written, if its value is not a single name.
    """

    def __init__(
        self, kind: str, row_type: type[R], key: str, rows: list[R], note: str = ""
    ) -> None:
        self.kind, self.row_type, self.key, self.note = kind, row_type, key, note
        self._own = {row.name: row for row in rows}
        if twice := {row.name for row in rows if self._own[row.name] is not row}:
            raise ConfigError(f"two rows of one table: the {kind} {twice.pop()!r}. Rename one")
        self._added: dict[str, R] = {}
        self._reserved: dict[str, str] = {}
        for row in reversed(rows):  # of two that clash, the later one is named first
            row.check_against(
                {name: other for name, other in self._own.items() if other is not row}
            )

    def _all(self) -> Mapping[str, R]:
        declared: Mapping[str, Any] = _declared.get().get(self.kind, {})
        if not (declared or self._added):
            return self._own
        return {**self._own, **dict(sorted({**self._added, **declared}.items()))}

    def __getitem__(self, name: str) -> R:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def find(self, name: object, key: str = "") -> R:
        """The row of this name.

        Raises:
            ConfigError: for an unknown name, about ``key``, with the nearest known one.
        """
        rows = self._all()
        if not isinstance(name, str) or name not in rows:
            hint = nearest(str(name), rows)
            raise ConfigError(f"{name!r} is not one of {', '.join(rows)}.{hint}", key)
        return rows[name]

    def reserve(self, names: Iterable[str], what: str) -> None:
        """Refuse these names for later rows, because they already mean ``what``."""
        self._reserved.update(dict.fromkeys(names, what))

    def add(self, row: R) -> None:
        """Add a row to the package's.

        Raises:
            ConfigError: when the name is invalid, reserved, or taken (naming both origins); as
                `Row.check_against`.
        """
        if not NAME.fullmatch(row.name):
            raise ConfigError(
                f"{row.origin}: {row.name!r} cannot name a {self.kind}: use letters, digits, "
                "'_' and '-', a letter first"
            )
        if (meaning := self._reserved.get(row.name)) is not None:
            raise ConfigError(
                f"{row.origin}: the {self.kind} cannot be named {row.name!r}, which is {meaning}. "
                "Choose another name"
            )
        others = {**self._own, **self._added}
        if (other := others.get(row.name)) is not None:
            raise ConfigError(
                f"{row.origin}: the {self.kind} {row.name!r} exists already (from {other.origin}). "
                "Choose another name"
            )
        row.check_against(others)
        self._added[row.name] = row

    def remove(self, name: str) -> None:
        del self._added[name]


@dataclass
class Recording:
    """The rows that an extension adds while it is executed."""

    file: str
    rows: list[tuple[Registry[Any], Row]]


_recording: ContextVar[Recording | None] = ContextVar("recording", default=None)


@contextmanager
def recorded(file: str) -> Iterator[Recording]:
    """Record the rows added in this context; remove all of them if it fails."""
    recording = Recording(file, [])
    token = _recording.set(recording)
    try:
        yield recording
    except BaseException:
        for table, row in recording.rows:
            table.remove(row.name)
        raise
    finally:
        _recording.reset(token)


@contextmanager
def declared(rows: Mapping[str, Mapping[str, Row]]) -> Iterator[None]:
    """Add these rows (kind → name → row) in this context, to read a config that uses them.

    The rows have no code, because the extension's file is not executed.
    """
    token = _declared.set(rows)
    try:
        yield
    finally:
        _declared.reset(token)


def decorator(table: Registry[R], **values: Any) -> Callable[[Any], Any]:
    """Make a decorator that adds a row whose implementation is the decorated object."""
    frame = sys._getframe(2)  # the frame of the file with the decorator
    recording = _recording.get()
    origin = f"{recording.file if recording else frame.f_code.co_filename}:{frame.f_lineno}"

    def add(code: Any) -> Any:
        row = table.row_type(implementation=code, origin=origin, **values)
        table.add(row)
        if recording is not None:
            recording.rows.append((table, row))
        return code

    return add
