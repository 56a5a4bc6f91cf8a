"""What a plan promises is kept in simulated studies."""

import math

import numpy as np
import pytest

from mpdit.decisions.family import Rules, decide
from mpdit.decisions.planning import MOST, POWER, needed

RULES = Rules(scale="difference", margin=0.5)


@pytest.mark.parametrize("variants", [2, 7])
def test_a_plan_settles_its_comparison_as_often_as_promised(variants: int) -> None:
    noise = np.random.default_rng(variants)
    names = [str(i) for i in range(variants)]
    pairs = [(name, "0") for name in names[1:]]
    kept = []
    for _ in range(300):
        values = noise.normal(size=(variants, 1000)) + noise.uniform(-4, 4, (variants, 1))

        def look(seeds: int, values: np.ndarray = values) -> dict[str, dict[int, float | None]]:
            return {
                name: dict(enumerate(row[:seeds]))
                for name, row in zip(names, values.tolist(), strict=True)
            }

        found = decide(look(3), pairs, RULES)
        for pair in found.open[:1]:
            seeds = needed(found.decisions[pair], RULES)
            assert seeds is not None
            if seeds <= 1000:
                kept.append(not decide(look(seeds), pairs, RULES).decisions[pair].is_open)
    assert len(kept) > 100
    assert np.mean(kept) > POWER - 0.07  # three standard errors of the simulation


def test_more_comparisons_and_smaller_effects_take_more_seeds() -> None:
    noise = np.random.default_rng(0)
    a, b = noise.normal(0, 1, 3).tolist(), noise.normal(1.2, 1, 3).tolist()
    runs = {"A": dict(enumerate(a)), "B": dict(enumerate(b)), "C": dict(enumerate(a[::-1]))}

    def plan(pairs: list[tuple[str, str]]) -> int | None:
        return needed(decide(runs, pairs, RULES).decisions["B", "A"], RULES)

    alone, among = plan([("B", "A")]), plan([("B", "A"), ("C", "A"), ("C", "B")])
    assert alone is not None
    assert among is not None
    assert 3 < alone < among < MOST


def test_without_an_interval_no_seeds_are_proposed() -> None:
    runs = {"A": {0: 1.0}, "B": {0: math.nan}}
    assert needed(decide(runs, [("B", "A")], RULES).decisions["B", "A"], RULES) is None


def test_no_seeds_are_proposed_where_failed_runs_contradict_the_values() -> None:
    good, bad = {0: 1.0, 1: 1.1, 2: 0.9, 3: math.nan}, {0: 2.0, 1: 2.3, 2: 1.6, 3: 2.1}
    runs = {"A": bad, "B": good}
    found = decide(runs, [("B", "A"), ("A", "B")], RULES).decisions
    assert found["B", "A"].is_open
    assert needed(found["B", "A"], RULES) is None
    # the variant with the failed run looks worse: the failure agrees
    vague = {"A": {0: 1.0, 1: 1.9, 2: 0.4}, "B": {0: 1.8, 1: 2.4, 2: 1.1, 3: math.nan}}
    assert needed(decide(vague, [("B", "A")], RULES).decisions["B", "A"], RULES) is not None
