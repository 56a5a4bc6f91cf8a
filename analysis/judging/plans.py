"""The seeds, hours and commands that would settle the open comparisons."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass

import pandas as pd

from analysis.judging import answers, tuning
from analysis.judging.answers import Answer
from analysis.study import Study, once
from mpdit.invocation import typed
from mpdit.peaks import CPUS
from mpdit.text import count, shortlist

LISTED = 5
"""The most open interactions that are named."""


@dataclass(frozen=True)
class OpenComparison:
    """A comparison without a verdict, and the cost of settling it with a probability of 80 %.

    Attributes:
        cost: device-hours of the further seeds of variant and baseline, estimated from the study's
            own runs; None if seeds or times are not known.
    """

    answer: Answer
    cost: float | None


@dataclass(frozen=True)
class Step:
    """What would settle a comparison: a text, and the command to type, '' where there is none."""

    text: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.text}: {self.command}" if self.command else self.text


@once
def plans(study: Study) -> dict[tuple[str, str], OpenComparison]:
    """Return the open comparisons by (variant, baseline), in the tables' order.

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
    """Return ``GPU-hours``, or ``CPU-hours`` (of one core) if the runs used no GPU."""
    devices = study.provenance.drop_duplicates("run", keep="last")["device"].dropna()
    return "CPU-hours" if len(devices) and devices.isin(CPUS).all() else "GPU-hours"


def _hours(study: Study) -> pd.Series[float]:
    """Return variant → the mean device-hours of one seed.

    Training, evaluation, and all points of a tuned variant are included; sampling is not recorded.
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


def _further(study: Study, answer: Answer, text: str) -> Step:
    """Return how to submit further seeds of an open comparison, after what they would do.

    With declared looks, the command goes up to the last look; after that look, and for joined
    studies, there is advice in words.
    """
    if study.is_joined:
        return Step(f"{text}: submit them with the grid of each study")
    if study.declared.get("looks"):
        if answers.family(study).wanted:
            return Step(text, _submit(study))
        compared = study.runs.loc[~study.runs["seed"].isin(tuning.seeds_apart(study)), "seed"]
        looks = f"{{looks: [{_seeds_in_all(study, answer)}], from: {compared.max() + 1}}}"
        return Step(f"{text}: declare them in a new study, with seeds: {looks}")
    submit = f"{_submit(study)} --set seeds={_seeds_in_all(study, answer)}"
    if answers.is_crossed(study):
        return Step(text, submit)
    variant, baseline = (shlex.quote(name) for name in (answer.variant, answer.baseline))
    return Step(text, f"{submit} --only {variant} --only {baseline}")


def _seeds_in_all(study: Study, answer: Answer) -> int:
    """Return the seeds per variant that would settle a comparison.

    Each failed seed is replaced by a further one.
    """
    failures = _failures(study)
    pair = failures if answers.is_crossed(study) else (answer.variant, answer.baseline)
    failed = max((failures.get(variant, 0) for variant in pair), default=0)
    return answer.seeds + failed + (answer.more_seeds or 0)


@once
def _failures(study: Study) -> dict[str, int]:
    """Return variant → its failed runs."""
    found = answers.failures(study)
    return dict(zip(found["variant"].astype(str), found["failed"].astype(int), strict=True))


def _submit(study: Study) -> str:
    """Return the command that submits the study. Without looks, it leaves out ``--set seeds``."""
    looks = study.declared.get("looks")
    sets = [text for text in study.sets if looks or text.partition("=")[0].strip() != "seeds"]
    asked = [word for text in sets for word in ("--set", text)]
    return typed("submit", study.grid or study.path / "grid.yaml", *asked)


def hours_text(hours: float | None, unit: str) -> str:
    """Return ``1.2 GPU-hours``, or a dash if the hours are not known."""
    if hours is None:
        return "–"
    return f"{hours:,.0f} {unit}" if hours >= 10 else f"{hours:.2g} {unit}"


def steps(study: Study) -> list[Step]:
    """Return what would settle each open comparison, with the command; the cheapest first.

    All open main effects are named, and then the `LISTED` cheapest interactions.

    Raises:
        NothingToShow: before the first evaluation.
    """
    hindered: dict[str, list[str]] = {}
    looks = study.declared.get("looks") or ()
    said: list[Step] = []
    each = "every variant" if answers.is_crossed(study) else "each"
    found = sorted(plans(study).values(), key=_rank)
    main = sum(not plan.answer.is_interaction for plan in found)
    for plan in found[: main + LISTED]:
        answer, more = plan.answer, plan.answer.more_seeds
        what = f"{answer.variant} against {answer.baseline}"
        if more is None:
            why = answer.reason or "more than 10,000 seeds would be needed"
            hindered.setdefault(why, []).append(what)
            continue
        cost = "" if plan.cost is None else f" (about {hours_text(plan.cost, unit(study))})"
        limit = ""
        if looks and _seeds_in_all(study, answer) > looks[-1]:
            limit = f", but the looks end at {looks[-1]} seeds"
        text = (
            f"{what}: {more:,} more seed{'s' * (more > 1)} of {each}{cost} would settle it with "
            f"80 % probability{limit}"
        )
        said.append(_further(study, answer, text))
    for why, names in hindered.items():
        names_and_why = f"{shortlist(names, LISTED)}: {why}"
        is_coming = why.startswith("preliminary") and study.declared.get("looks")
        is_coming = is_coming and not study.is_joined
        said.append(
            Step(f"{names_and_why}; to continue", _submit(study))
            if is_coming
            else Step(f"{names_and_why}.")
        )
    if len(found) > main + LISTED:
        what = count(len(found) - main - LISTED, "further open interaction")
        said.append(
            Step(f"{what}: see the table")
            if study.is_joined
            else Step(what, typed("answers", study.path, "--json"))
        )
    return said


def _rank(plan: OpenComparison) -> tuple[bool, float]:
    return plan.answer.is_interaction, plan.answer.more_seeds or math.inf


def as_json(study: Study) -> list[dict[str, object]]:
    """Return one object per comparison, as ``mpdit answers --json`` prints them."""
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
