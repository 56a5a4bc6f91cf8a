"""The stage of a study, from what is on disk (`mpdit.grid.stages`)."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mpdit.catalogue.measures import labelled
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.study.studydir import StudyDir

if TYPE_CHECKING:
    from mpdit.grid.stages import Stage

Row = dict[str, Any]


def read_stage(plan: Plan, study: StudyDir) -> Stage | None:
    """The stage of a staged study; None of any other. ``plan`` is the study's whole plan.

    A run has ended when it was evaluated, or when it diverged, as the same command would diverge
    again. A run that crashed or was lost has not ended.
    """
    if not plan.grid.is_staged:
        return None
    from mpdit.decisions.criteria import judge, rules  # here: with scipy
    from mpdit.grid.stages import stage_of

    places = study.places(plan.runs) if study.path.is_dir() else {}
    runs = {run_id: study.run(name) for run_id, name in places.items()}
    rows = {run_id: _rows(run) for run_id, run in runs.items()}
    own = {run_id: _own(found) for run_id, found in rows.items()}
    counts = Counter(label for found in own.values() for label in found)
    better = {label: metric.better for label in counts if (metric := labelled(label)) is not None}
    said = {label: row.get("better") for found in own.values() for label, row in found.items()}
    directions = better | {label: way for label, way in said.items() if way is not None}
    declared = plan.grid.declared
    label = judge(counts, directions, declared.metric) or ""
    values = {}
    for run_id, run in runs.items():
        if label in own[run_id]:
            values[run_id] = _value(own[run_id][label], rows[run_id])
        elif rows[run_id] or _diverged(run):
            values[run_id] = math.nan
    is_positive = not any(found[label]["value"] <= 0 for found in own.values() if label in found)
    about = {"margin": declared.margin, "scale": declared.scale, "looks": declared.looks}
    return stage_of(plan, values, rules(label, directions.get(label), is_positive, about))


def _rows(run: RunDir) -> list[Row]:
    """The rows of an evaluation; for a number that was measured again, only the last row."""
    rows = [row for row in read_rows(run.path / "evaluation.jsonl") if _is_number(row)]
    same = ("metric", "role", "weights", "sampling")
    return list({json.dumps([row.get(key) for key in same]): row for row in rows}.values())


def _is_number(row: Row) -> bool:
    return isinstance(row.get("metric"), str) and isinstance(row.get("value"), int | float)


def _own(rows: list[Row]) -> dict[str, Row]:
    """Label → the row that was measured with the run's own settings."""
    return {row["metric"]: row for row in rows if row.get("role", "run") == "run"}


def _value(own: Row, rows: list[Row]) -> float:
    """The mean over the run's sample sets; NaN where it is not finite."""
    sets = [float(own["value"])]
    sets += [
        float(row["value"])
        for row in rows
        if row.get("role") == "repeat" and _measured(row) == _measured(own)
    ]
    known = [value for value in sets if not math.isnan(value)]
    mean = sum(known) / len(known) if known else math.nan
    return mean if math.isfinite(mean) else math.nan


def _measured(row: Row) -> tuple[Any, ...]:
    """What has to agree for two rows to be repeats: metric, weights, count, reference."""
    reference = row.get("reference") or {}
    name = row["metric"].split("@")[0]
    return name, row.get("weights"), row.get("count"), reference.get("hash")


def _diverged(run: RunDir) -> bool:
    state = run.state()
    return state is not None and state.diverged and not run.is_leased()


def unsubmitted(runs: Sequence[PlannedRun], study: StudyDir) -> list[PlannedRun]:
    """The runs that were never submitted; a cancelled run waits until its user submits it."""
    before = {entry["name"] for entry in study.entries if "submitted" in entry}
    places = study.places(runs)
    return [run for run in runs if places.get(run.id, run.name) not in before]
