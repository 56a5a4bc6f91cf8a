"""What would settle the open comparisons: seeds, hours and commands."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

import pandas as pd

from analysis.judging import answers, tuning
from analysis.judging.answers import Answer
from analysis.study import Study, once
from mpdit.peaks import CPUS


@dataclass(frozen=True)
class OpenComparison:
    """A comparison without a verdict, and what settles it with a chance of 80 %.

    Attributes:
        cost: hours of a device for the further seeds of variant and baseline, by the study's own
            runs; None where seeds or times are not known.
    """

    answer: Answer
    cost: float | None


@once
def plans(study: Study) -> dict[tuple[str, str], OpenComparison]:
    """The open comparisons by (variant, baseline), in the tables' order.

    Raises:
        NothingToShow: before the first evaluation.
    """
    asked, hours = answers.answers(study), _hours(study)
    found = {}
    for answer in asked:
        if answer.is_open:
            of = hours.index if answer.variant not in hours else [answer.variant, answer.baseline]
            each = float(hours.reindex(of).sum(min_count=1))
            cost = None if answer.more_seeds is None else answer.more_seeds * each
            known = cost is not None and math.isfinite(cost)
            found[answer.variant, answer.baseline] = OpenComparison(answer, cost if known else None)
    return found


@once
def unit(study: Study) -> str:
    """``GPU-hours``, or ``CPU-hours`` (of a core) where the runs used none."""
    devices = study.provenance.drop_duplicates("run", keep="last")["device"].dropna()
    return "CPU-hours" if len(devices) and devices.isin(CPUS).all() else "GPU-hours"


def _hours(study: Study) -> pd.Series[float]:
    """Variant → the mean hours of a device that one of its seeds took.

    Training, evaluation, and all points of a tuned variant are counted; sampling is not recorded.
    """
    last = study.provenance.drop_duplicates("run", keep="last").astype({"run": str})
    last = last.reindex(columns=["run", "processes", "threads"]).set_index("run")
    devices = last["processes"].fillna(1).astype(float)
    if unit(study) == "CPU-hours":
        devices = devices * last["threads"].fillna(1).astype(float)
    measured = study.evaluations.assign(run=study.evaluations["run"].astype(str))
    seconds = measured.groupby("run")["seconds"].sum().astype(float)
    runs = study.runs[study.runs["state"] == "done"]
    runs = runs[~runs["seed"].isin(tuning.seeds_apart(study))]
    names = runs["run"].astype(str)
    spent = runs["train_seconds"].astype(float) + names.map(seconds).astype(float).fillna(0)
    spent = spent * names.map(devices).fillna(1) / 3600
    by_seed = spent.groupby([runs["variant"].astype(str), runs["seed"]]).sum(min_count=1)
    return by_seed.groupby(level=0, sort=False).mean()


def command(study: Study, answer: Answer) -> str:
    """What submits the further seeds of an open comparison; words after the last declared look."""
    looks = study.declared.get("looks")
    if looks and answer.seeds >= looks[-1]:
        return "the last look is over; declare them in a new study"
    submit = f"python launch.py submit {shlex.quote(study.grid or str(study.path / 'grid.yaml'))}"
    if looks:
        return submit
    submit += f" --set seeds={answer.seeds + (answer.more_seeds or 0)}"
    if answers.is_crossed(study):
        return submit
    variant, baseline = (shlex.quote(name) for name in (answer.variant, answer.baseline))
    return f"{submit} --only {variant} --only {baseline}"


def hours_text(hours: float | None, unit: str) -> str:
    """``1.2 GPU-hours``; a dash where they are not known."""
    if hours is None:
        return "–"
    return f"{hours:,.0f} {unit}" if hours >= 10 else f"{hours:.2g} {unit}"


def lines(study: Study) -> list[str]:
    """What would settle each open comparison, in words with the command; the cheapest first.

    Raises:
        NothingToShow: before the first evaluation.
    """
    said = []
    for plan in sorted(plans(study).values(), key=lambda plan: plan.answer.more_seeds or math.inf):
        answer, more = plan.answer, plan.answer.more_seeds
        what = f"{answer.variant} against {answer.baseline}"
        if more is None:
            why = answer.reason or "more than 10,000 seeds would be needed"
            said.append(f"{what}: {why}.")
            continue
        cost = "" if plan.cost is None else f" (about {hours_text(plan.cost, unit(study))})"
        said.append(
            f"{what}: {more:,} more seed{'s' * (more > 1)} of each{cost} settle it with a chance "
            f"of 80 %: {command(study, answer)}"
        )
    return said


def as_json(study: Study) -> list[dict[str, object]]:
    """One object a comparison: what ``python -m analysis answers --json`` prints."""
    found = plans(study)
    rows = []
    for answer in answers.answers(study):
        plan = found.get((answer.variant, answer.baseline))
        numbers = {
            name: value if math.isfinite(value := getattr(answer, name)) else None
            for name in ("effect", "low", "high", "p")
        }
        rows.append(
            {
                "variant": answer.variant,
                "baseline": answer.baseline,
                "verdict": answer.verdict,
                "effect": numbers["effect"],
                "low": numbers["low"],
                "high": numbers["high"],
                "scale": answer.scale,
                "seeds": answer.seeds,
                "failed": answer.failed,
                "p": numbers["p"],
                "more_seeds": answer.more_seeds,
                "cost": plan.cost if plan else None,
            }
        )
    return rows
