"""Ranges of numbers: ``{range: [0, 10, 2]}`` and ``{log: [1e-4, 1e-2], points: 5}``.

Both ends are values. The arithmetic is decimal, so that steps of 0.1 give 0.3 and not
0.30000000000000004. Points between the ends of a log range are rounded to `DIGITS` significant
digits, or to whole numbers where the key takes integers; whole values are integers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any

from mpdit.errors import nearest
from mpdit.grid.settings import Setting, kinds

DIGITS = 3
MAX_VALUES = 100_000
BEYOND = 3
"""Values by which tuning may extend a range beyond each of its ends."""
_FORMS = {
    ("range",): "{range: [FIRST, LAST, STEP]}",
    ("log", "points"): "{log: [FIRST, LAST], points: N}",
}


@dataclass(frozen=True)
class Range:
    """A range as it was written, and its values in order.

    Attributes:
        scale: ``linear`` or ``log``.
        step: the difference between neighbouring values in a linear range, their ratio in a log
            range.
    """

    scale: str
    step: float
    values: tuple[int | float, ...]


def read_range(node: Setting, key: str) -> Range:
    """The range in the mapping at ``node``, for the values of ``key``.

    Raises:
        ConfigError: with the line of what is wrong.
    """
    known = [name for form in _FORMS for name in form]
    for name in node.value:
        if name not in known:
            raise node.child(name).error(f"unknown key of a range.{nearest(str(name), known)}")
    if tuple(sorted(node.value)) not in _FORMS:
        raise node.error(f"a range is {' or '.join(_FORMS.values())}")
    if kinds(key).isdisjoint((int, float)):
        raise node.error(f"{key} is not a number: give it a list of values, not a range")
    whole = float not in kinds(key)
    found = _log(node, whole) if "log" in node.value else _linear(node)
    for value in found.values:
        if whole and not isinstance(value, int):
            raise node.error(f"{key} takes integers, and {value} would be a value")
    return found


def beyond(found: Range, whole: bool) -> tuple[tuple[int | float, ...], tuple[int | float, ...]]:
    """Up to `BEYOND` values before and after a range, each in the range's order and direction.

    Args:
        whole: whether its key takes integers.
    """
    first, second, *_, last = (Decimal(repr(value)) for value in (*found.values, found.values[-1]))
    if found.scale == "linear":
        step = second - first
        outside = [[first - k * step, last + k * step] for k in range(1, BEYOND + 1)]
    else:
        ratio = (last / first) ** (1 / Decimal(len(found.values) - 1))
        outside = [
            [_rounded(value, whole) for value in (first / ratio**k, last * ratio**k)]
            for k in range(1, BEYOND + 1)
        ]
    before, after = ([_short(pair[end]) for pair in outside] for end in (0, 1))
    known = set(found.values)
    before = [value for value in dict.fromkeys(before) if value not in known]
    return tuple(reversed(before)), tuple(v for v in dict.fromkeys(after) if v not in known)


def _rounded(value: Decimal, whole: bool) -> Decimal:
    return Decimal(round(value)) if whole else value.normalize(Context(DIGITS))


def _linear(node: Setting) -> Range:
    first, last, step = _numbers(node.child("range"), ("first", "last", "step"))
    if first == last or step == 0 or (step > 0) != (last > first):
        raise node.error(f"a step of {step} does not lead from {first} to {last}")
    if (last - first) / step >= MAX_VALUES:
        raise node.error(f"more than {MAX_VALUES:,} values")
    steps, rest = divmod(last - first, step)
    if rest:
        end = _short(first + steps * step)
        raise node.error(f"steps of {step} from {first} end at {end}, not at {last}")
    values = tuple(_short(first + index * step) for index in range(int(steps) + 1))
    return Range("linear", float(step), values)


def _log(node: Setting, whole: bool) -> Range:
    first, last = _numbers(node.child("log"), ("first", "last"))
    points = node.value["points"]
    if type(points) is not int or not 2 <= points <= MAX_VALUES:
        raise node.child("points").error(
            f"should be a number of values from 2 to {MAX_VALUES:,}, not {points!r:.80}"
        )
    if first <= 0 or last <= 0 or first == last:
        raise node.error(f"the ends of a log range are positive and differ: not {first}, {last}")
    ratio = (last / first) ** (1 / Decimal(points - 1))
    between = (first * (last / first) ** (Decimal(i) / (points - 1)) for i in range(1, points - 1))
    rounded = (_rounded(value, whole) for value in between)
    values = tuple(map(_short, map(Decimal, (first, *rounded, last))))
    if len(set(values)) < points:
        to = "whole numbers" if whole else f"{DIGITS} digits"
        raise node.error(f"{points} points are too close: rounded to {to}, some are equal")
    return Range("log", float(ratio), values)


def _numbers(node: Setting, names: tuple[str, ...]) -> Iterator[Decimal]:
    """The numbers of a list with one for each name, exactly as they were written."""
    given: Any = node.value
    if not (isinstance(given, list) and len(given) == len(names) and all(map(_is_number, given))):
        raise node.error(f"should be {len(names)} numbers, [{', '.join(names)}], not {given!r:.80}")
    return (Decimal(repr(number)) for number in given)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _short(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)
