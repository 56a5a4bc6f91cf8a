"""The stages of a study whose results decide which runs come next.

`stage_of` is a pure function of the plan and of the ended runs, so every caller gets the same
answer. First each variant's points race on the seeds of tuning; a range is extended while its best
point is at the edge. Then come the looks: decided comparisons stop, the others get more seeds.
The rules are those of `mpdit.decisions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from mpdit.catalogue.flags import part_conditioning
from mpdit.decisions import comparisons
from mpdit.decisions.comparisons import Design
from mpdit.decisions.family import Family, Pair, Rules, decide
from mpdit.decisions.racing import best, survivors
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.text import count

Values = Mapping[str, float | None]
"""A run's id → its value. NaN: it failed. None, or no entry: it has not ended."""
Point = tuple[Any, ...]
"""The values of the tune axes, in their order."""
Kind = Literal["tuning", "extension", "look", "comparison", "end"]


@dataclass(frozen=True)
class Stage:
    """The present stage of a study.

    Attributes:
        number, of: the stage's number, and how many stages of its kind there are.
        runs: all runs needed so far, in the plan's order.
        pending: the runs of these that have not ended; without any, the stage is over.
        chosen: variant → its point of the tune axes, once all are chosen.
        family: the decisions so far, where the study has looks and tuning is over.
    """

    kind: Kind
    number: int
    of: int
    runs: tuple[PlannedRun, ...]
    pending: tuple[PlannedRun, ...]
    chosen: Mapping[str, Point]
    family: Family | None = None

    @property
    def is_over(self) -> bool:
        """Whether the study needs no more runs."""
        return not self.pending

    @property
    def words(self) -> str:
        """The stage in words: ``look 2 of 4: 5 open comparisons``."""
        open_ = "" if self.family is None else count(len(self.family.open), "open comparison")
        match self.kind:
            case "tuning":
                return f"tuning {self.number} of {self.of}"
            case "extension":
                return f"tuning beyond the range, step {self.number} of at most {self.of}"
            case "look":
                return f"look {self.number} of {self.of}: {open_}"
            case "comparison":
                return "comparison at the chosen points"
        if self.family is None:
            return "all runs have ended"
        undecided = "all comparisons are decided"
        return f"ended: {open_} after the last look" if self.family.open else undecided

    def narrow(self, plan: Plan, *, pending: bool = False) -> Plan:
        """The runs of a plan that are needed so far, or only those that have not ended."""
        ids = {run.id for run in (self.pending if pending else self.runs)}
        return replace(plan, runs=tuple(run for run in plan.runs if run.id in ids))


def stage_of(plan: Plan, values: Values, rules: Rules) -> Stage:
    """The stage of a staged study.

    Args:
        values: the values of the runs that have ended.
        rules: how runs are compared.
    """
    return _Stages(plan, values, rules).current()


def pairs(plan: Plan) -> list[Pair]:
    """The study's comparisons, by its variants' configs."""
    first: dict[str, PlannedRun] = {}
    for run in plan.runs:
        first.setdefault(run.variant, run)
    return comparisons.pairs([_design(run) for run in first.values()])


def _design(run: PlannedRun) -> Design:
    model, data = run.config.model, run.config.data
    of_conditioning, flags = part_conditioning(model.flags)
    conditioning = (model.conditioning, model.final_conditioning, of_conditioning)
    return Design(run.variant, (model.name, data.name), conditioning, flags)


class _Stages:
    def __init__(self, plan: Plan, values: Values, rules: Rules) -> None:
        self.plan, self.values, self.rules = plan, values, rules
        self.tuning = plan.grid.declared.tuning
        self.runs: dict[str, dict[Point, dict[int, PlannedRun]]] = {}
        self.inner: dict[str, list[Point]] = {}
        for run in plan.runs:
            point = tuple(run.tune.values())
            self.runs.setdefault(run.variant, {}).setdefault(point, {})[run.seed] = run
            if not run.is_beyond and point not in self.inner.setdefault(run.variant, []):
                self.inner[run.variant].append(point)
        self.wanted: dict[str, PlannedRun] = {}

    def current(self) -> Stage:
        chosen: dict[str, Point] = {variant: points[0] for variant, points in self.inner.items()}
        if self.tuning:
            for stage in self._tune(chosen):
                if stage.pending:
                    return stage
        fresh = {variant: self.runs[variant][point] for variant, point in chosen.items()}
        seeds = self.plan.grid.seeds
        if not self.plan.grid.declared.looks:
            self._want(fresh[variant][seed] for variant in fresh for seed in seeds)
            stage = self._stage("comparison", 1, 1, chosen)
            return stage if stage.pending else replace(stage, kind="end")
        return self._look(fresh, chosen)

    def _want(self, runs: Iterator[PlannedRun]) -> None:
        self.wanted |= {run.id: run for run in runs}

    def _stage(
        self, kind: Kind, number: int, of: int, chosen: Mapping[str, Point], **more: Any
    ) -> Stage:
        runs = tuple(run for run in self.plan.runs if run.id in self.wanted)
        pending = tuple(run for run in runs if self.values.get(run.id) is None)
        return Stage(kind, number, of, runs, pending, chosen, **more)

    # Tuning --------------------------------------------------------------------------------------

    def _tune(self, chosen: dict[str, Point]) -> Iterator[Stage]:
        """The stages of tuning; at its end ``chosen`` has each variant's point."""
        tuned = {variant: points for variant, points in self.inner.items() if len(points) > 1}
        for number, seed in enumerate(self.tuning):
            for variant, points in tuned.items():
                alive = self._survivors(variant, points, number)
                self._want(self.runs[variant][point][seed] for point in alive)
            yield self._stage("tuning", number + 1, len(self.tuning), {})
        tried = {variant: list(points) for variant, points in tuned.items()}
        axes = self.plan.grid.tune
        most = sum(max(len(axis.before), len(axis.after)) for axis in axes)
        for step in range(1, 1 + most):
            chosen |= {variant: self._best(variant, points) for variant, points in tried.items()}
            beyond = {
                variant: [
                    point for point in self._beyond(variant, chosen[variant]) if point not in points
                ]
                for variant, points in tried.items()
            }
            if not any(beyond.values()):
                return
            for variant, points in beyond.items():
                tried[variant] += points
                self._want(
                    self.runs[variant][point][seed] for point in points for seed in self.tuning
                )
            yield self._stage("extension", step, most, {})
        chosen |= {variant: self._best(variant, points) for variant, points in tried.items()}

    def _raced(self, variant: str, points: Sequence[Point], seeds: int) -> dict[Point, list[float]]:
        """The values of each point on the first seeds, for needed runs that have ended."""
        found: dict[Point, list[float]] = {}
        for point in points:
            ended = (self._value(variant, point, seed) for seed in self.tuning[:seeds])
            found[point] = [value for value in ended if value is not None]
        return found

    def _value(self, variant: str, point: Point, seed: int) -> float | None:
        run = self.runs[variant][point][seed]
        return self.values.get(run.id) if run.id in self.wanted else None

    def _survivors(self, variant: str, points: Sequence[Point], seeds: int) -> list[Point]:
        raced = self._raced(variant, points, seeds)
        return survivors(raced, seeds, self.rules.lower_is_better)

    def _best(self, variant: str, points: Sequence[Point]) -> Point:
        """The chosen point; the race's last survivor where all have failed."""
        raced = self._raced(variant, points, len(self.tuning))
        found = best(raced, self.rules.lower_is_better)
        return (
            self._survivors(variant, self.inner[variant], len(self.tuning))[0]
            if found is None
            else found
        )

    def _beyond(self, variant: str, point: Point) -> Iterator[Point]:
        """The neighbours beyond the range's end of a point that is at that end or beyond it."""
        for index, axis in enumerate(self.plan.grid.tune):
            line, at = axis.line, axis.line.index(point[index])
            first, last = len(axis.before), len(axis.before) + len(axis.choices) - 1
            steps = [at - 1] if at <= first else []
            steps += [at + 1] if at >= last else []
            for step in steps:
                if 0 <= step < len(line):
                    other = (*point[:index], line[step], *point[index + 1 :])
                    if other in self.runs[variant]:
                        yield other

    # Looks ---------------------------------------------------------------------------------------

    def _look(
        self, fresh: Mapping[str, Mapping[int, PlannedRun]], chosen: Mapping[str, Point]
    ) -> Stage:
        seeds, looks = self.plan.grid.seeds, self.plan.grid.declared.looks
        outcomes = {
            variant: {seed: self.values.get(of[seed].id) for seed in seeds}
            for variant, of in fresh.items()
        }
        family = decide(outcomes, pairs(self.plan), self.rules)
        needed = dict.fromkeys(fresh, looks[0])
        for (variant, baseline), found in family.decisions.items():
            mine, theirs = found.seeds + found.failed, found.baseline_seeds + found.baseline_failed
            needed[variant], needed[baseline] = (
                max(needed[variant], mine),
                max(needed[baseline], theirs),
            )
        for variant, number in family.wanted.items():
            needed[variant] = max(needed[variant], number)
        self._want(fresh[variant][seed] for variant, n in needed.items() for seed in seeds[:n])
        number = looks.index(max(needed.values())) + 1
        stage = self._stage("look", number, len(looks), chosen, family=family)
        return stage if stage.pending else replace(stage, kind="end")
