"""Parts of a study: the runs that ``--only`` selects, and the runs outside its grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mpdit.errors import ConfigError
from mpdit.grid.plan import Plan
from mpdit.grid.selection import names_of, select
from mpdit.study.studydir import OLD_DIGITS, StudyDir


def select_runs(study: StudyDir, patterns: Sequence[str]) -> list[str]:
    """The folders of the runs that patterns select; all of them without a pattern.

    Raises:
        ConfigError: for a pattern that matches none.
    """
    named = (
        (entry["name"], names_of(entry["name"], entry["variant"], entry.get("named")))
        for entry in study.entries
    )
    return select(named, patterns, study.name) if patterns else [name for name, _ in named]


def select_part(study: StudyDir, plan: Plan, patterns: Sequence[str]) -> Plan:
    """The runs of the study's plan that patterns select by the names in `select_runs`.

    Without a pattern it is the whole plan.

    Raises:
        ConfigError: as `select_runs`.
    """
    if not patterns:
        return plan
    chosen, places = set(select_runs(study, patterns)), study.places(plan.runs)
    runs = (run for run in plan.runs if places.get(run.id, run.name) in chosen)
    return replace(plan, runs=tuple(runs))


def outside(study: StudyDir, plan: Plan) -> list[str]:
    """The runs in study.json that are not in a plan; none without a study.json."""
    now = {known for run in plan.runs for known in (run.id, run.id[:OLD_DIGITS])}
    try:
        return [entry["name"] for entry in study.entries if entry["id"] not in now]
    except ConfigError:
        return []
