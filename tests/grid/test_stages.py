"""Which runs come next: a pure function of the grid and of what has ended."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest

from mpdit.grid.forecast import forecast
from mpdit.grid.plan import PlannedRun
from mpdit.grid.stages import pairs
from tests.helpers.plans import plan
from tests.helpers.staged import noisy, stage, walk

VARIANTS = "variants: {a: {}, better: {mp_silu: true}, same: {mp_residual: true}}\n"
LOOKS = VARIANTS + "seeds: {looks: [3, 5, 8]}\n"
TUNED = (
    VARIANTS
    + """
tune: {train.learning_rate: {log: [1e-4, 1e-2], points: 5}, seeds: 2}
seeds: {looks: [3, 5], from: 10}
"""
)
MEANS = {"a": 20.0, "better": 8.0, "same": 20.4}


def truth(run: PlannedRun) -> float:
    rate = run.tune.get("train.learning_rate", 1e-3)
    return noisy(run, MEANS[run.variant] * math.exp(abs(math.log10(rate) + 3)), 0.04)


def seeds(runs: tuple[PlannedRun, ...], variant: str) -> set[int]:
    return {run.seed for run in runs if run.variant == variant}


def test_decided_comparisons_stop_and_open_ones_get_the_next_seeds() -> None:
    stages = walk(plan(LOOKS), truth)
    first, second, *_, last = stages
    assert all(seeds(first.runs, variant) == {0, 1, 2} for variant in MEANS)
    assert first.words == "look 1 of 3: 2 open comparisons"
    # a is the baseline of the open comparison too
    assert second.words == "look 2 of 3: 1 open comparison"
    assert seeds(second.runs, "better") == {0, 1, 2}
    assert seeds(second.runs, "a") == seeds(second.runs, "same") == {0, 1, 2, 3, 4}
    assert last.is_over
    assert last.family is not None
    assert last.family.decisions["better", "a"].verdict == "better"


def test_points_race_and_the_best_is_compared_on_seeds_that_chose_nothing() -> None:
    stages = walk(plan(TUNED), truth)
    assert [s.words for s in stages[:3]] == [
        "tuning 1 of 2",
        "tuning 2 of 2",
        "look 1 of 2: 2 open comparisons",
    ]
    raced = Counter(run.variant for run in stages[0].runs)
    assert set(raced.values()) == {5}
    halved = Counter(run.variant for run in stages[1].runs)
    assert set(halved.values()) == {5 + 3}
    compared = [run for run in stages[-1].runs if run.seed < 1_000_000]
    assert {run.tune["train.learning_rate"] for run in compared} == {0.001}
    assert {run.seed for run in compared} <= set(range(10, 15))
    assert stages[-1].chosen == dict.fromkeys(MEANS, (0.001,))


def test_a_range_is_extended_while_the_best_point_is_at_its_edge() -> None:
    def rising(run: PlannedRun) -> float:
        return noisy(run, 1 / run.tune["train.learning_rate"], 0.01)

    stages = walk(plan(TUNED), rising)
    extended = [s for s in stages if s.kind == "extension"]
    assert len(extended) == 3  # and then no further
    tried = sorted({run.tune["train.learning_rate"] for run in stages[-1].runs})
    assert tried == [0.0001, 0.000316, 0.001, 0.00316, 0.01, 0.0316, 0.1, 0.316]
    assert stages[-1].chosen["a"] == (0.316,)


def test_a_list_is_not_extended_and_a_range_only_as_far_as_it_makes_sense() -> None:
    listed = plan(VARIANTS + "tune: {train.learning_rate: [1e-3, 1e-2], seeds: 1}\nseeds: 3\n")
    assert not any(run.is_beyond for run in listed.runs)
    near = plan(VARIANTS + "tune: {model.depth: {range: [1, 3, 1]}, seeds: 1}\nseeds: 3\n")
    beyond = {run.tune["model.depth"] for run in near.runs if run.is_beyond}
    assert beyond == {4, 5, 6}  # there is no model without a block


def test_tuning_apart_without_looks_ends_with_all_seeds_at_the_chosen_points() -> None:
    made = plan(VARIANTS + "tune: {train.learning_rate: [1e-3, 1e-2], seeds: 1}\nseeds: 4\n")
    stages = walk(made, truth)
    assert [s.kind for s in stages] == ["tuning", "comparison", "end"]
    assert len(stages[-1].runs) == 3 * (2 + 4)


def test_a_shared_modulation_is_compared_as_another_conditioning() -> None:
    made = plan(
        "ladder: {a: {}, b: {mp_silu: true}, c: {mp_residual: true}}\n"
        "variants:\n  c-shared: {from: c, shared_modulation: true}\n"
        "  c-rotation: {from: c, model.conditioning: rotation}\n"
    )
    assert pairs(made) == [("b", "a"), ("c", "a"), ("c-shared", "c"), ("c-rotation", "c")]


@pytest.mark.parametrize("text", [LOOKS, TUNED])
def test_whatever_was_finished_first_the_same_runs_are_needed_in_the_end(text: str) -> None:
    made = plan(text)
    straight = walk(made, truth)
    for number in range(8):
        order = walk(made, truth, random.Random(number))
        assert order[-1].runs == straight[-1].runs
        assert [s.words for s in order] == [s.words for s in straight]


def test_what_ran_without_being_needed_changes_nothing() -> None:
    made = plan(TUNED)
    everything = {run.id: truth(run) for run in made.runs}
    assert stage(made, everything).runs == walk(made, truth)[-1].runs


def test_a_failed_run_is_an_outcome_and_a_crashed_one_holds_the_stage() -> None:
    made = plan(TUNED)

    def failing(run: PlannedRun) -> float:
        return math.nan if run.tune["train.learning_rate"] >= 1e-3 else truth(run)

    assert walk(made, failing)[-1].chosen["a"] == (0.000316,)
    assert walk(made, lambda _: math.nan)[-1].is_over  # nothing can be said, and nothing hangs
    first = stage(made, {})
    all_but_one = {run.id: truth(run) for run in first.runs[1:]}
    held = stage(made, all_but_one)
    assert held.words == first.words
    assert held.pending == first.runs[:1]


def test_a_variant_that_is_compared_with_none_gets_the_first_look() -> None:
    made = plan("grid: {model.name: [DiT-XS/2, DiT-S/4]}\nseeds: {looks: [3, 5]}\n")
    assert pairs(made) == []
    stages = walk(made, lambda run: noisy(run, 20, 0.1))
    assert len(stages[-1].runs) == 6


@pytest.mark.parametrize("text", [LOOKS, TUNED])
def test_a_study_ends_within_what_was_forecast(text: str) -> None:
    made = plan(text)
    for now in walk(made, truth):
        found = forecast(made, now)
        if now.kind == "end":
            runs = Counter(run.variant for run in now.runs)
            assert found.least == found.most == runs
            continue
        assert all(
            found.least[v] <= found.expected[v] <= found.most[v]
            and found.least[v] <= runs <= found.most[v]
            for v, runs in Counter(run.variant for run in walk(made, truth)[-1].runs).items()
        )


def test_before_any_run_half_of_the_comparisons_are_expected_to_end_at_each_look() -> None:
    made = plan("variants: {a: {}, b: {mp_silu: true}}\nseeds: {looks: [3, 5, 9]}\n")
    found = forecast(made, stage(made, {}))
    assert found.least == {"a": 3, "b": 3}
    assert found.expected == {"a": 3 + 2 / 2 + 4 / 4, "b": 5}
    assert found.most == {"a": 9, "b": 9}
