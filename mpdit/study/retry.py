"""Retry failed runs, with more time or memory where asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mpdit.errors import ConfigError
from mpdit.grid.plan import PlannedRun
from mpdit.grid.resources import Resources, parse_minutes
from mpdit.grid.sets import Sets, read_sets
from mpdit.study.studydir import StudyDir

STATES = ("failed", "lost")

_FACTOR = re.compile(r"[xX×](?=.*[1-9])(\d{1,6}(?:\.\d{1,6})?)")
_MEMORY = re.compile(r"(\d{1,9})([KMGT])B?")


def adjust(
    runs: Sequence[PlannedRun],
    study: StudyDir,
    time: str | None,
    memory: str | None,
    sets: Sequence[str] = (),
) -> list[PlannedRun]:
    """Give runs the time and memory of their last submission, or new ones.

    Args:
        time, memory: an amount as in a grid, or a factor such as ``x2``; None changes nothing.
        sets: texts of ``--set``, which go over all others.

    Raises:
        ConfigError: for any other text, and for a factor where a run had no amount.
    """
    over = _only_resources(sets, study)
    last = {entry["name"]: entry.get("submitted", {}) for entry in study.entries}
    names, adjusted = study.places(runs), []
    for run in runs:
        said = last.get(names.get(run.id, run.name), {})
        more = run.resources
        for key in (key for key in ("time", "memory") if key in said):
            more = more.with_value(key, said[key], "the last submission")
        if time is not None:
            more = more.with_value("time", _minutes(time, more, run.name), f"--time {time}")
        if memory is not None:
            size = _size(memory, more, run.name)
            more = more.with_value("memory", size, f"--memory {memory}")
        adjusted.append(replace(run, resources=over.over(more, run.named)))
    return adjusted


def _only_resources(texts: Sequence[str], study: StudyDir) -> Sets:
    sets = read_sets(texts)
    if other := next(iter(sets.layer.values()), sets.seeds):
        raise ConfigError(f"{other.source.name}: a retry can only set resources (slurm.…)")
    sets.check_variants([entry["named"] for entry in study.entries if entry.get("named")])
    return sets


def last_cluster(study: StudyDir) -> str:
    """``slurm`` or ``local``, by the study's last submission; ``auto`` without one."""
    known = [entry["submitted"]["cluster"] for entry in study.entries if "submitted" in entry]
    return known[-1] if known else "auto"


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
    if before.memory in (None, "0"):
        had = "all of a node's memory" if before.memory else "no memory to multiply"
        raise ConfigError(f"--memory {text}: {name} had {had}; give an amount like 16G")
    return scaled_memory(before.memory, float(factor[1]))


def scaled_memory(memory: str, factor: float) -> str:
    """An amount of memory such as ``16G``, multiplied."""
    had = _MEMORY.fullmatch(memory)
    assert had is not None, memory
    wanted, unit = int(had[1]) * factor, had[2]
    if not wanted.is_integer() and unit != "K":
        wanted, unit = 1024 * wanted, {"T": "G", "G": "M", "M": "K"}[unit]
    return f"{max(1, round(wanted))}{unit}"  # 0 is all of a node
