"""Trying again what failed, with more time or memory than it had."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mpdit.errors import ConfigError
from mpdit.grid.plan import PlannedRun
from mpdit.grid.resources import Resources, parse_minutes
from mpdit.study.studydir import StudyDir

STATES = ("failed", "lost")

_FACTOR = re.compile(r"[xX×](\d+(?:\.\d+)?)")
_MEMORY = re.compile(r"(\d{1,9})([KMGT])B?")


def adjust(
    runs: Sequence[PlannedRun], study: StudyDir, time: str | None, memory: str | None
) -> list[PlannedRun]:
    """The runs with the time and memory that they were last submitted with, or more.

    Args:
        time, memory: an amount as in a grid, or a factor such as ``x2``; None leaves it.

    Raises:
        ConfigError: for text that is neither, and for a factor of a run that named no amount.
    """
    last = {entry["name"]: entry.get("submitted", {}) for entry in study.entries}
    names = study.places(runs)
    return [_adjusted(run, last.get(names.get(run.id, run.name), {}), time, memory) for run in runs]


def last_cluster(study: StudyDir) -> str:
    """Where runs of the study were last submitted to; ``auto`` when nothing says so."""
    known = [entry["submitted"]["cluster"] for entry in study.entries if "submitted" in entry]
    return known[-1] if known else "auto"


def _adjusted(
    run: PlannedRun, last: Mapping[str, Any], time: str | None, memory: str | None
) -> PlannedRun:
    before = run.resources.model_copy(
        update={key: last[key] for key in ("time", "memory") if key in last}
    )
    minutes = _minutes(time, before, run.name) if time is not None else before.time
    size = _size(memory, before, run.name) if memory is not None else before.memory
    return replace(run, resources=before.model_copy(update={"time": minutes, "memory": size}))


def _minutes(text: str, before: Resources, name: str) -> int:
    factor = _FACTOR.fullmatch(text)
    if factor is None:
        try:
            return parse_minutes(text)
        except ValueError as error:
            raise ConfigError(f"--time {text}: {error}, or a factor like x2") from None
    if before.time is None:
        raise ConfigError(f"--time {text}: {name} had no time to multiply; give one like 4:00:00")
    return max(1, round(before.time * float(factor[1])))


def _size(text: str, before: Resources, name: str) -> str:
    factor, size = _FACTOR.fullmatch(text), _MEMORY.fullmatch(text)
    if factor is None and size is None:
        raise ConfigError(f"--memory {text}: memory is text like 16G, or a factor like x2")
    if factor is None:
        return text
    had = _MEMORY.fullmatch(before.memory or "")
    if had is None:
        raise ConfigError(f"--memory {text}: {name} had no memory to multiply; give one like 16G")
    wanted = int(had[1]) * float(factor[1])
    if wanted.is_integer():
        return f"{wanted:.0f}{had[2]}"
    smaller = {"T": "G", "G": "M", "M": "K"}.get(had[2])
    return f"{wanted * 1024:.0f}{smaller}" if smaller else f"{wanted:.0f}K"
