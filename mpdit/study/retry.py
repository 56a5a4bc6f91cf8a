"""Retry failed runs, with more time or memory where asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from mpdit.errors import ConfigError
from mpdit.grid.plan import PlannedRun
from mpdit.grid.resources import MEMORY_SHARES, Resources, parse_minutes
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
        sets: texts of ``--set``, which override everything else.

    Raises:
        ConfigError: for any other text, and for a factor where a run had no amount.
    """
    over = _only_resources(sets, study)
    last = {entry["name"]: entry.get("submitted", {}) for entry in study.entries}
    names, adjusted = study.places(runs), []
    for run in runs:
        said = last.get(names.get(run.id, run.name), {})
        more = run.resources
        if "time" in said:
            more = more.with_value("time", said["time"], "the last submission")
        if "memory" in said:
            more = _with_memory(more, said["memory"], "the last submission")
        options = said.get("resources", {}).get("extra", {})
        for share in (share for share in MEMORY_SHARES if share in options):
            more = more.with_value(f"extra.{share}", options[share], "the last submission")
        if time is not None:
            more = more.with_value("time", _minutes(time, more, run.name), f"--time {time}")
        if memory is not None:
            more = _with_size(memory, more, run.name)
        adjusted.append(replace(run, resources=over.over(more, run.named)))
    return adjusted


def _only_resources(texts: Sequence[str], study: StudyDir) -> Sets:
    sets = read_sets(texts)
    if other := next(iter((*sets.layer.values(), *sets.study.values())), None):
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


def _with_size(text: str, before: Resources, name: str) -> Resources:
    factor, origin = _FACTOR.fullmatch(text), f"--memory {text}"
    if factor is not None:
        more = with_memory_times(before, float(factor[1]), origin)
        if more is None:
            had = "all of a node's memory" if before.memory else "no memory to multiply"
            raise ConfigError(f"{origin}: {name} had {had}; give an amount like 16G")
        return more
    if _MEMORY.fullmatch(text) is None:
        raise ConfigError(f"{origin}: memory is text like 16G, or a factor like x2")
    return _with_memory(before, text, origin)


def _with_memory(before: Resources, memory: str | None, origin: str) -> Resources:
    """The resources with this memory alone: sbatch accepts only one of its memory options."""
    for share in MEMORY_SHARES if memory else ():
        if share in before.extra:
            before = before.with_value(f"extra.{share}", False, origin)
    return before.with_value("memory", memory, origin)


def with_memory_times(before: Resources, factor: float, origin: str) -> Resources | None:
    """The resources with ``factor`` times the memory; None where they name no amount."""
    share = next((share for share in MEMORY_SHARES if before.extra.get(share)), None)
    had = before.memory if share is None else str(before.extra[share])
    if had is None or int(had.rstrip("KMGTB")) == 0:  # 0 is all of a node
        return None
    size = _scaled(f"{had}M" if had.isdigit() else had, factor)
    return before.with_value("memory" if share is None else f"extra.{share}", size, origin)


def _scaled(memory: str, factor: float) -> str:
    had = _MEMORY.fullmatch(memory)
    assert had is not None, memory
    wanted, unit = int(had[1]) * factor, had[2]
    if not wanted.is_integer() and unit != "K":
        wanted, unit = 1024 * wanted, {"T": "G", "G": "M", "M": "K"}[unit]
    return f"{max(1, round(wanted))}{unit}"  # 0 is all of a node
