"""YAML text → plain values, and the line each of them came from.

Read event by event, so that a hostile file is refused before anything is built from it: no
aliases, no tags, no duplicate keys, a bounded size and depth. Scalars follow YAML 1.2 where the two
versions differ: only ``true`` and ``false`` are booleans, ``1e-3`` is a number and ``1:30`` is
text; besides, ``400_000`` is an integer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mpdit.errors import ConfigError, nearest

MAX_BYTES = 1_000_000
MAX_DEPTH = 20

Where = tuple[str | int, ...]
"""The keys and list indices that lead to a value."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9](_?[0-9]){0,30}")
_FLOAT = re.compile(r"[-+]?([0-9](_?[0-9])*\.?([0-9](_?[0-9])*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True)
class Source:
    """A parsed text. ``lines`` holds the first line (from 1) of every key and list item."""

    name: str
    tree: Any
    lines: dict[Where, int]

    def error(self, where: Where, message: str) -> ConfigError:
        """A ``file:line: key: message`` for the value at ``where``."""
        known = where
        while known not in self.lines:
            known = known[:-1]
        line = f":{self.lines[known]}" if self.lines[known] else ""
        keys = ".".join(str(key) for key in where if isinstance(key, str))
        return ConfigError(f"{self.name}{line}: " + (f"{keys}: {message}" if keys else message))


def read(file: Path) -> tuple[str, Source]:
    """The text of a YAML file, and what it says.

    Raises:
        ConfigError: when it cannot be read, or is refused.
    """
    try:
        with file.open("rb") as handle:
            data = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"there is no file {file}.{_similar(file)}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not text in UTF-8") from None
    return text, parse(text, str(file))


def _similar(file: Path) -> str:
    known = [str(other) for other in file.parent.glob("*") if other.suffix in (".yaml", ".yml")]
    return nearest(str(file), known)


def parse(text: str, name: str = "grid") -> Source:
    """One YAML document.

    Raises:
        ConfigError: naming file and line, for text that is not YAML or is refused.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_BYTES:,} bytes: no grid is")
    builder = _Builder(name)
    try:
        return Source(name, builder.document(yaml.parse(text, Loader=_Loader)), builder.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        raise ConfigError(f"{name}{line}: not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeError) as error:
        reason = getattr(error, "reason", "it holds characters that YAML does not allow")
        raise ConfigError(f"{name}: not YAML: {reason}") from None


def scalar(text: str) -> Any:
    """What an unquoted scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Builder:
    """Builds one document from its events."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[Where, int] = {(): 0}

    def document(self, events: Iterator[Any]) -> Any:
        next(events)  # the stream's start
        event = next(events)
        if isinstance(event, yaml.StreamEndEvent):
            raise ConfigError(f"{self.name} is empty")
        value = self.value(events, next(events), ())
        next(events)  # the document's end
        if not isinstance(event := next(events), yaml.StreamEndEvent):
            raise self.refuse(event, "a second document; a grid is one")
        return value

    def value(self, events: Iterator[Any], event: Any, where: Where) -> Any:
        if isinstance(event, yaml.AliasEvent):
            raise self.refuse(event, f"aliases (*{event.anchor}) are not allowed")
        if event.anchor is not None:
            raise self.refuse(event, f"anchors (&{event.anchor}) are not allowed")
        if event.tag is not None:
            raise self.refuse(event, f"tags ({event.tag}) are not allowed")
        if isinstance(event, yaml.ScalarEvent):
            return scalar(event.value) if event.implicit[0] else event.value
        if len(where) >= MAX_DEPTH:
            raise self.refuse(event, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.SequenceStartEvent):
            return self.sequence(events, where)
        return self.mapping(events, where)

    def sequence(self, events: Iterator[Any], where: Where) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            here = (*where, len(items))
            self.lines[here] = _line(event)
            items.append(self.value(events, event, here))
        return items

    def mapping(self, events: Iterator[Any], where: Where) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor or event.tag:
                raise self.refuse(event, "a key must be plain text")
            key = str(event.value)
            here = (*where, key)
            if key in items:
                raise self.refuse(
                    event, f"the key {key!r} is there twice (first in line {self.lines[here]})"
                )
            self.lines[here] = _line(event)
            items[key] = self.value(events, next(events), here)
        return items

    def refuse(self, event: Any, message: str) -> ConfigError:
        return ConfigError(f"{self.name}:{_line(event)}: {message}")


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1
