"""Layers of settings: the keys that base, a variant, an axis or ``--set`` sets.

A key may be written nested (``train: {steps: 10}``), dotted (``train.steps``) or, for the
flags, bare (``mp_silu``); a layer holds each under its one dotted name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from mpdit.catalogue import FLAGS, TABLES
from mpdit.config import DEFAULTS, SECTIONS, RunConfig, former_keys, known_keys, make_run
from mpdit.disk.yamlfile import Where, YamlText
from mpdit.errors import ConfigError, closest, nearest
from mpdit.extensions import Extension
from mpdit.modelconfig import parse_model_name

SIZE_KEYS = ("model.depth", "model.width", "model.heads", "model.patch_size")
SUPERSEDES = {
    "model.name": SIZE_KEYS,
    "data.name": ("data.path", "data.channels", "data.size", "data.classes"),
}
"""A key → the keys of earlier layers that it overrides when a later layer sets it."""


class Setting(NamedTuple):
    """One value, and where it was written."""

    value: Any
    source: YamlText
    where: Where

    @property
    def line(self) -> int:
        """The line, counted from 1; 0 for a value that is in no file."""
        return self.source.lines.get(self.where, 0)

    def child(self, key: str | int) -> Setting:
        """An entry of this mapping or list."""
        return Setting(self.value[key], self.source, (*self.where, key))

    def get(self, key: str) -> Setting | None:
        """An entry of this mapping, where it has it."""
        return self.child(key) if key in self.value else None

    def error(self, message: str) -> ConfigError:
        return self.source.error(self.where, message)


Layer = dict[str, Setting]


def read_layer(source: YamlText, where: Where, tree: Any, skip: Collection[str] = ()) -> Layer:
    """The settings in a mapping, nested or dotted, without the keys in ``skip``.

    Raises:
        ConfigError: for an unknown key, one that is set twice under two spellings, or a mapping in
            place of a value.
    """
    layer = read_axes(Setting(tree, source, where), skip)
    for node in layer.values():
        if isinstance(node.value, Mapping):
            raise node.error("should be a value, not a mapping")
    return layer


def read_axes(node: Setting, skip: Collection[str] = ()) -> Layer:
    """As `read_layer`, where a value may also be a mapping, such as a range.

    Raises:
        ConfigError: as `read_layer`.
    """
    layer: Layer = {}
    _collect(layer, node, "", skip)
    return layer


def _collect(layer: Layer, node: Setting, prefix: str, skip: Collection[str]) -> None:
    if node.value is None and not prefix:
        return
    if not isinstance(node.value, Mapping):
        name = " (a named size is model.name)" if prefix == "model." else ""
        raise node.error(f"should be a mapping of options, not {node.value!r}{name}")
    for name in node.value:
        child = node.child(name)
        if not prefix and name in skip:
            continue
        key = f"model.{name}" if not prefix and name in FLAGS else prefix + name
        if key == "data" and not isinstance(child.value, Mapping):
            key = "data.name"
        if key in SECTIONS:
            _collect(layer, child, f"{key}.", skip)
            continue
        _check_key(key, child)
        if key in layer:
            raise child.error(f"{key} is set twice here (first in line {layer[key].line})")
        layer[key] = child


def _check_key(key: str, node: Setting) -> None:
    if key == "seed":
        raise node.error("seeds are the study's own: write 'seeds: 3' or 'seeds: [3, 5]' beside it")
    if key not in (known := known_keys()) and key not in former_keys():
        hint = nearest(key, known) if "." in key else _hint(key, known)
        raise node.error(f"unknown key.{hint}")


def _hint(word: str, known: Sequence[str]) -> str:
    """Suggest what a word without dots may mean.

    A flag, the last part of a key (``norm``), or one option's value (``swiglu``).
    """
    meant = {key.rpartition(".")[2]: key for key in reversed(known)} | {f: f for f in FLAGS}
    close = closest(word, meant)
    if close != word:
        keys = [table.key for table in TABLES.values() if word in table]
        if len(keys) == 1:
            return f" Did you mean '{keys[0]}: {word}'?"
    return "" if close is None else f" Did you mean {meant[close]!r}?"


FLAGS.reserve(("variant", "from", "reason", "slurm"), "a key of a grid")


def fold(layers: Iterable[Layer]) -> Layer:
    """Later layers over earlier ones."""
    folded: Layer = {}
    for layer in layers:
        for key in SUPERSEDES.keys() & layer.keys():
            for old in SUPERSEDES[key]:
                folded.pop(old, None)
        folded.update(layer)
    return folded


def to_run(
    layer: Layer, seed: int, extensions: Sequence[Extension] = (), defaults: int = DEFAULTS
) -> RunConfig:
    """The run that a folded layer describes, with the extensions that it uses.

    Raises:
        ConfigError: of ``make_run``, with its key; ``blame`` finds the line.
    """
    tree: dict[str, Any] = {"model": {}, "data": {}, "train": {}, "seed": seed}
    tree["extensions"] = extensions
    for key, setting in layer.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = setting.value
    return make_run(tree, defaults)


def written(layer: Layer, key: str) -> Any:
    """A key's value in a layer: set there, implied by the model's name, or the default."""
    section, _, name = key.partition(".")
    if key in layer:
        return layer[key].value
    if key in SIZE_KEYS and "model.name" in layer:
        try:
            size, patch = parse_model_name(layer["model.name"].value)
        except ValueError:
            return None
        return {**size._asdict(), "patch_size": patch}[name]
    if section == "model" and name in FLAGS:
        return False
    field = SECTIONS[section].model_fields.get(name)
    return None if field is None else field.default


def kinds(key: str) -> frozenset[type]:
    """The types that a key's value may have; empty for a key that has been removed."""
    section, _, name = key.partition(".")
    field = SECTIONS[section].model_fields.get(name)
    return frozenset() if field is None else frozenset(_kinds(field.annotation))


def _kinds(annotation: Any) -> Iterator[type]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        yield from map(type, arguments)
    elif origin in (Union, UnionType, Annotated):
        for inner in arguments[:1] if origin is Annotated else arguments:
            yield from _kinds(inner)
    else:
        yield origin or annotation


def blame(layer: Layer, error: ConfigError) -> tuple[str, ...]:
    """The keys of ``layer`` that an error of ``to_run`` is about.

    One key where a value is wrong by itself. For a combination, the keys that the message names,
    then the keys whose values it names. No key where something is missing.
    """
    for key, setting in layer.items():
        if f"{error.key}.".startswith(f"{key}.") or _quoted(setting, error.message):
            return (key,)
    by_name = [key for key in layer if _named(key, error.message)]
    by_value = [key for key, setting in layer.items() if _shown(setting, error.message)]
    return tuple(dict.fromkeys((*by_name, *by_value)))


def is_alone(keys: tuple[str, ...], layer: Layer, error: ConfigError) -> bool:
    """Whether one key's value is wrong whatever the other values are."""
    return len(keys) == 1 and (
        error.key.startswith(keys[0]) or _quoted(layer[keys[0]], error.message)
    )


def _quoted(setting: Setting, message: str) -> bool:
    return isinstance(setting.value, str) and repr(setting.value) in message


def _named(key: str, message: str) -> bool:
    keys = SIZE_KEYS if key == "model.name" else (key,)
    return any(re.search(rf"\b{other.partition('.')[2]}\b", message) for other in keys)


def _shown(setting: Setting, message: str) -> bool:
    return isinstance(setting.value, str) and len(setting.value) > 3 and setting.value in message


def shortest(key: str) -> str:
    """A key as one would write it: the flags bare."""
    name = key.removeprefix("model.")
    return name if name in FLAGS else key
