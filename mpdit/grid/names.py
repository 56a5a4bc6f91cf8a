"""Readable names: a run is ``<label>_s<seed>-<id>``, and safe as the name of a folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mpdit.catalogue import FLAGS
from mpdit.catalogue.flags import code_of
from mpdit.grid.settings import Setting

MAX_NAME = 80
MAX_LABEL = 100

_SAFE = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._+-]{{0,{MAX_NAME - 1}}}")
_SPEAKS_FOR_ITSELF = {"model.name", "model.conditioning", "data.name", "train.precision"}
_SHORT = {"learning_rate": "lr", "mp_learning_rate": "mp-lr", "batch_size": "batch"}


def check_name(node: Setting, what: str) -> str:
    """The user's name for ``what``, which becomes a folder's name or a part of it.

    Raises:
        ConfigError: when it is not safe.
    """
    if not isinstance(node.value, str) or not _SAFE.fullmatch(node.value):
        raise node.error(
            f"{node.value!r:.120} cannot name {what}: up to {MAX_NAME} letters, digits and . _ + -,"
            " the first a letter or digit"
        )
    return node.value


def slug(text: str) -> str:
    """``text`` in letters, digits, dots and hyphens; ``+`` becomes a dot, to stay distinct."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text.replace("+", ".")).strip("-.")


def _number(value: float) -> str:
    return repr(value).replace("+", "")


def _value(value: Any) -> str:
    match value:
        case None:
            return "none"
        case bool():
            return "on" if value else "off"
        case int() | float():
            return _number(value)
        case list():
            return "-".join(_value(item) for item in value)
        case _:
            return slug(str(value))


def short_key(key: str) -> str:
    """``train.learning_rate`` → ``lr``; keys of sample and evaluate keep their section."""
    section, _, name = key.partition(".")
    short = _SHORT.get(name, name.replace("_", "-"))
    return short if section in ("model", "data", "train") else f"{section}-{short}"


def axis_label(values: Mapping[str, Any]) -> str:
    """The part of a label for axis values: ``cos-wn_rotation-scale_depth-4``.

    The flags that are on make one part.
    """
    parts: dict[str, str] = {}
    flags: list[str] = []
    for key, value in values.items():
        flag = key.removeprefix("model.")
        if flag in FLAGS and isinstance(value, bool):
            flags += [code_of(flag)] if value else []
            parts["flags"] = "-".join(flags) or "none"
        elif key in _SPEAKS_FOR_ITSELF and isinstance(value, str):
            parts[key] = slug(value)
        else:
            parts[key] = f"{short_key(key)}-{_value(value)}"
    return "_".join(parts.values())


def run_name(label: str, seed: int, run_id: str) -> str:
    """The name of a run's folder."""
    return f"{label[:MAX_LABEL]}_s{seed}-{run_id}"
