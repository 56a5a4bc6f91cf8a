"""Effects and probabilities as text for readers."""

from __future__ import annotations

import math

from mpdit.decisions.family import LEVEL

DASH = "–"
TIMES = 2.5
"""Ratios up to this one are written as a change in percent."""


def minus(text: str) -> str:
    """Replace hyphens by minus signs, which are as wide as a plus."""
    return text.replace("-", "−")


def change(effect: float, low: float, high: float, scale: str) -> str:
    """Return a change: ``−26.2 % [−40.1, −8.4]``, ``×3.1 [×1.2, ×8.0]``, ``−0.04 [−0.06, −0.02]``.

    The interval is left out if its bounds are NaN.
    """
    values = [value for value in (effect, low, high) if not math.isnan(value)]
    if math.isnan(effect):
        return DASH
    if scale == "difference":
        wide = high - low if len(values) == 3 else abs(effect)
        places = 3 if not wide else min(12, max(0, 2 - math.floor(math.log10(wide))))
        texts, unit = [f"{value:+.{places}f}" for value in values], ""
    elif max(values) > TIMES:
        texts, unit = [f"×{value:.3g}" for value in values], ""
    else:
        texts, unit = [f"{100 * (value - 1):+.1f}" for value in values], " %"
    interval = f" [{texts[1]}, {texts[2]}]" if len(values) == 3 else ""
    return minus(f"{texts[0]}{unit}{interval}")


def probability(value: float) -> str:
    """Return ``0.013`` or ``< 0.001``; near 0.05, with enough digits to show the side."""
    if math.isnan(value):
        return DASH
    if value < 0.001:
        return "< 0.001"
    digits = next(n for n in range(2, 18) if (float(f"{value:.{n}g}") < LEVEL) == (value < LEVEL))
    return f"{value:.{digits}g}"
