"""YAML text → plain values, and the line where each of them was written.

Size, depth and the values behind aliases are bounded. Duplicate keys and tags are refused. Anchors,
aliases and merge keys (``<<: *base``) are allowed. In files that people write, control characters
are refused too, and scalars follow YAML 1.2 where PyYAML's 1.1 differs: only ``true`` and ``false``
are booleans, ``1e-3`` is a number and ``1:30`` is text; besides, ``400_000`` is an integer. Text
that PyYAML dumped is read back unchanged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mpdit.errors import ConfigError, nearest
from mpdit.text import CONTROL, printable

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
MAX_ALIASED = 100_000
"""The most values that aliases may add to the values written out."""

Where = tuple[str | int, ...]
"""The keys and list indices that lead to a value."""

_INT = re.compile(r"[-+]?[0-9](_?[0-9]){0,30}")
_FLOAT = re.compile(
    r"[-+]?([0-9](_?[0-9])*(\.([0-9](_?[0-9])*)?)?|\.[0-9]+)([eE][-+]?[0-9]+)?"
)  # each digit has one place in it: others take quadratic time
_COMPARISON = re.compile(r"[:\[,-]\s*(>|>=|!=)\s*[-+.\d]")
_CLOSE_COLON = re.compile(r"[{,]\s*[\w.]+:[^\s/]")
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}


@dataclass(frozen=True)
class YamlText:
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


def read(file: Path) -> tuple[str, YamlText]:
    """Read a YAML file that a person wrote; return its text, and the parsed text.

    Raises:
        ConfigError: when the file cannot be read, or its text is refused.
    """
    try:
        text = read_text(file)
    except FileNotFoundError:
        known = [str(other) for other in file.parent.glob("*") if other.suffix in (".yaml", ".yml")]
        raise ConfigError(f"there is no file {file}.{nearest(str(file), known)}") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    return text, parse(text, str(file))


def read_text(file: Path) -> str:
    """Read a text file; of a large file, only as much as :func:`parse` needs to refuse its size.

    Raises:
        OSError: when it cannot be read.
        ConfigError: when it is not text.
    """
    with file.open("rb") as handle:
        data = handle.read(MAX_BYTES + 1)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is not text in UTF-8") from None


def parse(text: str, name: str = "grid", *, dumped: bool = False) -> YamlText:
    """Parse one YAML document that a person wrote, or that ``yaml.safe_dump`` ``dumped``.

    Raises:
        ConfigError: naming file and line, for text that is not YAML or is refused.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_BYTES:,} bytes")
    try:
        loader = _Loader(text) if dumped else _PlainLoader(text)
        root = loader.get_single_node()
        tree = root and loader.value(root, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f":{mark.line + 1}"
        reason = ", ".join(filter(None, (error.context, error.problem)))
        there = "" if mark is None else (*text.splitlines(), "")[mark.line]
        if _COMPARISON.search(there):
            reason += ". A comparison is text in quotes, such as '>=1e-3'"
        elif reason.startswith("mapping values") and there.count(": ") > 1:
            reason += ". Text with a colon needs quotes"
        elif "block" in reason or reason.startswith("mapping values"):
            reason += ". Check the quotes and the indentation of this line and of those before it"
        elif _CLOSE_COLON.search(there):
            reason += ". In braces, write a space after each colon, such as {looks: [3, 5]}"
        prefix = "" if isinstance(error, _RefusedError) else "not valid YAML: "
        raise ConfigError(f"{name}{line}: {prefix}{reason}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: not valid YAML: {getattr(error, 'reason', error)}") from None
    if root is None:
        raise ConfigError(f"{name} is empty")
    return YamlText(name, tree, loader.lines)


def parse_value(text: str, name: str) -> YamlText:
    """Parse one value of a command line.

    Brackets, braces and quotes are as in a file. Any other text is one scalar, which may hold ``#``
    or ``: `` and begin with ``*``. No text is the empty scalar.

    Raises:
        ConfigError: as `parse`, and for text after the value.
    """
    text = text.strip()
    if not text.startswith(("[", "{", '"', "'")):
        return YamlText(name, _plain(text) if text else "", {(): 0})
    values = parse(f"[{text}]", name).tree  # in brackets, a comment after the value is an error
    if len(values) != 1:
        raise ConfigError(f"{name}: should be one value: write a list as [a, b]")
    return YamlText(name, values[0], {(): 0})


class _RefusedError(yaml.MarkedYAMLError):
    """Valid YAML that is refused."""

    def __init__(self, node: yaml.Node, message: str) -> None:
        super().__init__(problem=message, problem_mark=node.start_mark)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Composes nodes (by libyaml, ten times as fast as without), and turns them into values."""

    tags = frozenset(
        f"tag:yaml.org,2002:{kind}"
        for kind in ("map", "seq", "str", "null", "bool", "int", "float", "timestamp", "merge")
    )
    depth = 0
    visits_left = MAX_ALIASED

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lines: dict[Where, int] = {(): 0}

    def descend_resolver(self, parent: Any, _: Any) -> None:
        """Count a node before it is composed: the composer recurses, in C without a limit."""
        self.visits_left += 1
        self.depth += 1
        if self.depth > MAX_DEPTH + 1:
            raise _RefusedError(parent, f"nested deeper than {MAX_DEPTH}")

    def ascend_resolver(self) -> None:
        self.depth -= 1

    def visit(self, node: Any, depth: int) -> None:
        """Refuse a node with a tag, and aliases that are circular or expand to too many nodes."""
        self.visits_left -= 1
        if self.visits_left < 0:
            raise _RefusedError(node, f"aliases stand for more than {MAX_ALIASED:,} values")
        if depth > MAX_DEPTH:
            raise _RefusedError(node, f"aliases nest deeper than {MAX_DEPTH}; one may hold itself")
        if node.tag not in self.tags:
            raise _RefusedError(node, f"tags ({node.tag}) are not allowed")

    def value(self, node: Any, where: Where) -> Any:
        """Return the value of a node, and record the lines of its entries below ``where``."""
        self.visit(node, len(where))
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node)
        is_mapping = isinstance(node, yaml.MappingNode)
        pairs = zip(node.value, node.value, strict=True)
        entries = self.entries(node, len(where)) if is_mapping else dict(enumerate(pairs))
        values = {}
        for key, (at, child) in entries.items():
            self.lines[here := (*where, key)] = at.start_mark.line + 1
            values[key] = self.value(child, here)
        return values if is_mapping else list(values.values())

    def entries(self, mapping: Any, depth: int) -> dict[Any, tuple[Any, Any]]:
        """Return key → (key's node, value's node): first the merged entries, then its own."""
        own: dict[Any, tuple[Any, Any]] = {}
        for key, value in mapping.value:
            self.visit(key, depth)
            if not isinstance(key, yaml.ScalarNode):
                raise _RefusedError(key, "a key must be plain text")
            if key.value in own:
                first = f"first in line {own[key.value][0].start_mark.line + 1}"
                raise _RefusedError(key, f"the key {key.value!r} is listed twice ({first})")
            own[key.value] = key, value
        if "<<" not in own or own["<<"][0].style:
            return own
        key, value = own.pop("<<")
        merged: dict[Any, tuple[Any, Any]] = {}
        for base in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            self.visit(base, depth + 1)
            if not isinstance(base, yaml.MappingNode):
                raise _RefusedError(key, "<< merges a mapping, or a list of mappings")
            for name, nodes in self.entries(base, depth + 1).items():
                merged.setdefault(name, nodes)
        return merged | own

    def scalar(self, node: Any) -> Any:
        return self.construct_object(node)


class _PlainLoader(_Loader):
    """Takes unquoted scalars as YAML 1.2 does, and no tags at all."""

    tags = frozenset({""})

    def resolve(self, *_: Any) -> str:
        return ""

    def visit(self, node: Any, depth: int) -> None:
        """Refuse control characters too: a terminal obeys them, and a path cannot hold NUL."""
        super().visit(node, depth)
        if isinstance(node, yaml.ScalarNode) and (found := CONTROL.search(node.value)):
            raise _RefusedError(node, f"text holds the control character {printable(found[0])}")

    def scalar(self, node: Any) -> Any:
        return node.value if node.style else _plain(node.value)


def _plain(text: str) -> Any:
    """The value of a scalar without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
