"""What ``exclude`` leaves out: combinations with the listed values, or on one side of a number."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mpdit.catalogue import FLAGS
from mpdit.config import RunConfig
from mpdit.grid.settings import Layer, Setting, kinds, read_layer, shortest, written

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "!=": operator.ne,
}
_COMPARISON = re.compile(r"(<=|>=|!=|<|>)\s*(.*)")


@dataclass(frozen=True)
class Bound:
    """A comparison such as ``>=1e-3`` in place of a value."""

    text: str
    operator: str
    number: float

    def holds(self, value: Any) -> bool:
        """Whether the comparison is true for a value; it is false for anything but a number."""
        return type(value) in (int, float) and _OPERATORS[self.operator](value, self.number)


@dataclass(frozen=True)
class Exclusion:
    """The combinations to leave out, in which every key has one of the listed values."""

    conditions: dict[str, tuple[Any, ...]]
    reason: str
    setting: Setting
    """The whole exclusion, as it was written."""

    @property
    def text(self) -> str:
        """``{forced_weight_normalization: true, weight_normalization: false}``."""
        return conditions_text(
            {shortest(k): v[0] if len(v) == 1 else v for k, v in self.conditions.items()}
        )

    def meets(self, variant: str | None, seed: int, layer: Layer, config: RunConfig | None) -> bool:
        """Whether this exclusion leaves out a run.

        Args:
            variant: the name of its ladder step or variant.
            layer: the settings that its grid gives it.
            config: the config that these settings make; None where they are invalid.
        """
        own: dict[str, list[Any]] = {"variant": [variant], "seed": [seed]}
        return all(
            _matches(wanted, own.get(key) or _values(key, layer, config))
            for key, wanted in self.conditions.items()
        )


def _matches(conditions: tuple[Any, ...], values: list[Any]) -> bool:
    """Whether a condition is met: a value by any of ``values``, a comparison by the last one."""
    return any(
        condition.holds(values[-1])
        if isinstance(condition, Bound)
        else any(
            value == condition and isinstance(value, bool) == isinstance(condition, bool)
            for value in values
        )
        for condition in conditions
    )


def _values(key: str, layer: Layer, config: RunConfig | None) -> list[Any]:
    """A key's value as it was written, and then as it was resolved."""
    section, _, name = key.partition(".")
    found = [written(layer, key)]
    if config is not None:
        resolved = config.model.flags if section == "model" and name in FLAGS else None
        found.append(
            getattr(getattr(config, section), name, None) if resolved is None else name in resolved
        )
    return found


def conditions_text(conditions: dict[str, Any]) -> str:
    """A mapping as one would write it in a grid."""
    return f"{{{', '.join(f'{key}: {yaml_text(value)}' for key, value in conditions.items())}}}"


def yaml_text(value: Any) -> str:
    """A value as one would write it in a grid."""
    match value:
        case bool():
            return str(value).lower()
        case tuple() | list():
            return f"[{', '.join(map(yaml_text, value))}]"
        case None:
            return "null"
        case Bound():
            return f'"{value.text}"'
        case _:
            return str(value)


def read_exclusions(top: Setting) -> Iterator[Exclusion]:
    """Read the exclusions of a grid.

    Raises:
        ConfigError: with the line of what is wrong.
    """
    node = top.get("exclude")
    if node is None:
        return
    if not isinstance(node.value, list):
        raise node.error("should be a list of conditions, each a mapping of keys to values")
    for child in map(node.child, range(len(node.value))):
        yield _exclusion(child)


def _exclusion(node: Setting) -> Exclusion:
    own = ("variant", "seed", "reason")
    layer = read_layer(node.source, node.where, node.value, own)
    given = {key: node.child(key) for key in own[:2] if key in (node.value or {})} | layer
    if not given:
        raise node.error("should be a mapping of keys to values")
    reason = node.value.get("reason", "")
    if not isinstance(reason, str):
        raise node.child("reason").error("should be text")
    conditions = {key: tuple(_wanted(key, setting)) for key, setting in given.items()}
    return Exclusion(conditions, " ".join(reason.split()), node)


def _wanted(key: str, setting: Setting) -> Iterator[Any]:
    """The values of a condition, where texts such as ``>=1e-3`` are comparisons."""
    values = setting.value if isinstance(setting.value, list) else [setting.value]
    for value in values:
        match = _COMPARISON.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            yield value
            continue
        if key != "seed" and (key == "variant" or kinds(key).isdisjoint((int, float))):
            raise setting.error(f"{value!r} compares numbers, and {key} is not a number")
        try:
            number = float(match[2])
        except ValueError:
            raise setting.error(
                f"{value!r} should compare with a number, such as '{match[1]}1e-3'"
            ) from None
        yield Bound(value, match[1], number)
