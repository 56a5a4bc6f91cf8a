"""Simulated studies with known effects, and verdicts worked out by hand."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from mpdit.decisions.family import LEVEL, Decision, Family, Outcomes, Rules, decide

SEVEN = list("ABCDEFG")
PAIRS = [(variant, "A") for variant in SEVEN[1:]]
DIFFERENCE = Rules(scale="difference")


def outcomes(values: dict[str, Sequence[float | None]]) -> Outcomes:
    return {variant: dict(enumerate(found)) for variant, found in values.items()}


def simulated(
    noise: np.random.Generator, sds: Sequence[float], effects: Sequence[float], seeds: int
) -> Outcomes:
    drawn = noise.normal(size=(len(sds), seeds)) * np.array(sds)[:, None]
    found = (drawn + np.array(effects)[:, None]).tolist()
    return outcomes(dict(zip(SEVEN, found, strict=False)))


def family(
    noise: np.random.Generator,
    sds: Sequence[float],
    effects: Sequence[float],
    seeds: int,
    rules: Rules = DIFFERENCE,
) -> Family:
    names = SEVEN[: len(sds)]
    pairs = [(variant, "A") for variant in names[1:]]
    return decide(simulated(noise, sds, effects, seeds), pairs, rules)


def covers(found: Family, effects: Sequence[float]) -> bool:
    """Whether all intervals of the study hold the truth."""
    truths = [effect - effects[0] for effect in effects[1:]]
    decisions = found.decisions.values()
    return all(d.low <= truth <= d.high for d, truth in zip(decisions, truths, strict=True))


def one(mine: Sequence[float | None], theirs: Sequence[float | None], rules: Rules) -> Decision:
    [found] = decide(outcomes({"B": mine, "A": theirs}), [("B", "A")], rules).decisions.values()
    return found


EQUAL, TWICE, FOUR_TIMES = 0.95, 0.93, 0.90
SPREADS = [
    ([1] * 7, EQUAL),
    ([2, *[1] * 6], TWICE),
    ([1] * 6 + [2], TWICE),
    ([1, 2] * 3 + [1], TWICE),
    ([4, *[1] * 6], FOUR_TIMES),
    ([1] * 6 + [4], FOUR_TIMES),
    ([0.25, *[1] * 6], FOUR_TIMES),
    ([1, 1], EQUAL),
    ([1, 2], TWICE),
    ([1, 4], FOUR_TIMES),
    ([1] * 3, EQUAL),
    ([2, 1, 1], TWICE),
    ([4, 1, 1], FOUR_TIMES),
]


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("sds", "least"), SPREADS)
def test_all_intervals_of_a_study_hold_together(sds: list[float], least: float, seeds: int) -> None:
    noise = np.random.default_rng(seeds)
    effects = noise.uniform(-3, 3, len(sds)).tolist()
    held = [covers(family(noise, sds, effects, seeds), effects) for _ in range(4000)]
    assert np.mean(held) > least - 0.005  # one standard error of the simulation is 0.004


@pytest.mark.slow
@pytest.mark.parametrize(("sds", "least"), SPREADS)
def test_each_95_percent_interval_holds(sds: list[float], least: float) -> None:
    """Of one comparison among variants of which only it is asked: the level is not corrected."""
    noise = np.random.default_rng(1)
    held = []
    for _ in range(5000):
        found = simulated(noise, sds, [0] * len(sds), 3)
        for variant in (SEVEN[1], SEVEN[len(sds) - 1]):
            decision = decide(found, [(variant, "A")], DIFFERENCE).decisions[variant, "A"]
            held.append(decision.low <= 0 <= decision.high)
    assert np.mean(held[::2]) > least - 0.006
    assert np.mean(held[1::2]) > least - 0.006


@pytest.mark.parametrize(("sds", "least"), SPREADS[:5])
def test_the_intervals_of_three_seeds_hold_together(sds: list[float], least: float) -> None:
    noise = np.random.default_rng(0)
    held = [covers(family(noise, sds, [0] * 7, 3), [0] * 7) for _ in range(800)]
    assert np.mean(held) > least - 0.01


def test_seven_variants_of_three_seeds_have_three_times_the_power_of_paired_t_tests() -> None:
    noise, effects = np.random.default_rng(2), [0, *[3] * 6]
    found, paired = [], []
    for _ in range(500):
        runs = simulated(noise, [1] * 7, effects, 3)
        found += [not d.is_open for d in decide(runs, PAIRS, DIFFERENCE).decisions.values()]
        values = np.array([list(runs[variant].values()) for variant in SEVEN], dtype=float)
        paired.append(stats.ttest_rel(values[1:], values[:1], axis=1).pvalue < LEVEL / 6)
    assert np.mean(found) > 3 * np.mean(paired)
    assert np.mean(found) > 0.45


@pytest.mark.parametrize("sds", [[1] * 7, [2, *[1] * 6]])
def test_repeated_intervals_hold_at_all_looks_together(sds: list[float]) -> None:
    noise, rules = np.random.default_rng(3), Rules(scale="difference", looks=(3, 5, 8, 12))
    held = [covers(family(noise, sds, [0] * 7, 12, rules), [0] * 7) for _ in range(400)]
    assert np.mean(held) > (EQUAL if sds[0] == 1 else TWICE) - 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("sds", "least"), SPREADS)
def test_an_interval_that_fails_at_any_look_counts_as_failed(
    sds: list[float], least: float
) -> None:
    noise, rules = np.random.default_rng(4), Rules(scale="difference", looks=(3, 5, 8, 12))
    held = []
    for _ in range(1500):
        found = simulated(noise, sds, [0] * len(sds), 12)
        pairs = [(variant, "A") for variant in SEVEN[1 : len(sds)]]
        at_looks = (
            decide({v: dict(list(s.items())[:n]) for v, s in found.items()}, pairs, rules)
            for n in rules.looks
        )
        held.append(all(covers(family, [0] * len(sds)) for family in at_looks))
    assert np.mean(held) > least - 0.01


def test_an_equivalence_is_false_in_few_studies() -> None:
    noise, rules = np.random.default_rng(5), Rules(scale="difference", margin=2.0)
    found = [family(noise, [1, 1], [0, 2.0], 10, rules) for _ in range(1000)]
    verdicts = [f.decisions["B", "A"].verdict for f in found]
    assert np.mean([verdict == "equivalent" for verdict in verdicts]) < LEVEL
    same = [family(noise, [1, 1], [0, 0], 20, rules) for _ in range(200)]
    assert np.mean([f.decisions["B", "A"].verdict == "equivalent" for f in same]) > 0.9


def test_an_interval_excludes_no_difference_just_where_p_says_so() -> None:
    noise, rejected = np.random.default_rng(6), 0
    for looks in ((), (3, 5)):
        rules = Rules(scale="difference", looks=looks)
        for _ in range(100):
            for d in family(noise, [1] * 7, [0, 1, 2, 3, 4, 5, 6], 5, rules).decisions.values():
                assert (d.p < LEVEL) == (d.low > 0 or d.high < 0)
                rejected += d.p < LEVEL
    assert 200 < rejected < 1100


def test_the_verdict_follows_the_metrics_direction_and_the_margin() -> None:
    low, high = [1.00, 1.01, 0.99], [2.00, 2.01, 1.99]
    assert one(low, high, Rules()).verdict == "better"
    assert one(high, low, Rules()).verdict == "worse"
    assert one(low, high, Rules(lower_is_better=False)).verdict == "worse"
    assert one(high, low, Rules(scale="difference", lower_is_better=False)).verdict == "better"
    assert one([1.02, 1.03, 1.01], low, Rules(margin=0.1)).verdict == "equivalent"
    assert one([1.0, 3.0, 1.8], [1.1, 2.7, 2.2], Rules()).verdict == "undecided"


def test_a_ratio_is_that_of_geometric_means_whatever_the_unit() -> None:
    mine, theirs = [2.0, 8.0, 4.0], [1.0, 2.0, 4.0]
    found = one(mine, theirs, Rules())
    scaled = one([1000 * x for x in mine], [1000 * x for x in theirs], Rules())
    assert found.effect == pytest.approx(2)
    assert (scaled.effect, scaled.low, scaled.high) == pytest.approx(
        (found.effect, found.low, found.high)
    )


def test_two_seeds_give_a_picture_and_no_verdict() -> None:
    found = one([1.0, 1.01], [2.0, 2.01], Rules())
    assert found.verdict == "undecided"
    assert found.high < 1
    assert "preliminary" in found.reason
    alone = one([1.0], [2.0], Rules())
    assert (alone.effect, math.isnan(alone.low), alone.verdict) == (0.5, True, "undecided")


def test_unequal_variances_fall_back_to_the_paired_t_interval() -> None:
    noise = np.random.default_rng(7)
    a, b = noise.normal(0, 1, 8), noise.normal(0, 30, 8)
    runs = outcomes({"A": a.tolist(), "B": b.tolist()})
    found = decide(runs, [("B", "A")], DIFFERENCE)
    assert found.larger == {"B": pytest.approx(2 * stats.f.sf((b.var() / a.var()), 7, 7))}
    expected = stats.ttest_rel(b, a).confidence_interval()
    decision = found.decisions["B", "A"]
    assert (decision.low, decision.high) == pytest.approx((expected.low, expected.high))
    assert decision.p == pytest.approx(stats.ttest_rel(b, a).pvalue)
    assert decision.is_paired


def test_one_loud_variant_leaves_the_other_comparisons_moderated() -> None:
    noise = np.random.default_rng(7)
    sds = {"A": 1, "B": 30, "C": 1, "D": 1}
    runs = outcomes({name: noise.normal(0, sd, 8).tolist() for name, sd in sds.items()})
    found = decide(runs, [(name, "A") for name in "BCD"], DIFFERENCE)
    assert [d.is_paired for d in found.decisions.values()] == [True, False, False]
    assert found.decisions["C", "A"].degrees > 7


def test_a_failed_run_is_counted_and_forbids_a_verdict_that_it_contradicts() -> None:
    good, bad = [1.00, 1.01, 0.99], [2.00, 2.01, 1.99]
    lost = [*good, math.nan, math.nan]
    survivors = one(lost, [*bad, 2.02, 1.98], Rules())
    assert (survivors.verdict, survivors.seeds, survivors.failed) == ("undecided", 3, 2)
    assert "2 of 5" in survivors.reason
    # failures of the worse side only make it worse
    assert one([*bad, math.nan], [*good, 1.0], Rules()).verdict == "worse"
    assert one([*good, 1.0], [*bad, math.nan], Rules()).verdict == "better"
    assert one([*good, math.nan], [*bad, math.nan], Rules()).verdict == "better"
    assert one([*good, math.nan], [*good, 1.0], Rules(margin=0.1)).verdict == "undecided"
    none = one([math.nan] * 3, good, Rules())
    assert (none.verdict, none.failed, math.isnan(none.effect)) == ("undecided", 3, True)
    assert none.reason == "all 3 runs of B that have ended failed"


def test_a_finite_diverged_run_counts_as_failed_and_leaves_the_effect_alone() -> None:
    noise = np.random.default_rng(8)
    a, b = noise.normal(20, 0.5, 5).tolist(), noise.normal(17, 0.5, 5).tolist()
    clean = decide(outcomes({"A": a, "B": b}), [("B", "A")], DIFFERENCE)
    spoilt = decide(outcomes({"A": [*a, 400.0], "B": b}), [("B", "A")], DIFFERENCE)
    assert spoilt.outliers == {"A": (5,)}
    found = spoilt.decisions["B", "A"]
    assert found.effect == pytest.approx(clean.decisions["B", "A"].effect)
    assert (found.baseline_failed, found.verdict) == (1, "better")


def test_few_sound_runs_are_called_failed() -> None:
    noise = np.random.default_rng(9)
    flagged = 0
    for sds in ([1, 1], [1] * 7, [4, *[1] * 6]):
        for _ in range(500):
            found = family(noise, sds, [0] * len(sds), 3)
            flagged += sum(map(len, found.outliers.values()))
    assert flagged / (500 * 3 * 16) < 0.002


# Looks -------------------------------------------------------------------------------------------

LOOKS = Rules(looks=(3, 5, 8))
CLEAR = [1.0, 1.01, 0.99, 1.02, 0.98, 1.0, 1.0, 1.0]
VAGUE = [2.0, 3.0, 1.2, 2.6, 1.4, 3.1, 2.0, 1.1]
BASE = [2.0, 2.02, 1.98, 2.01, 1.99, 2.0, 2.0, 2.0]


def look(seeds: int, **more: Sequence[float | None]) -> Family:
    runs = {"A": BASE, "B": CLEAR, "C": VAGUE}
    shown = {name: values[:seeds] for name, values in runs.items()} | more
    return decide(outcomes(shown), [("B", "A"), ("C", "A")], LOOKS)


def test_after_a_look_open_comparisons_and_their_baseline_get_the_next_seeds() -> None:
    noise = np.random.default_rng(10)
    runs = {
        "A": noise.normal(0, 1, 8).tolist(),
        "B": noise.normal(9, 1, 8).tolist(),
        "C": noise.normal(0, 1, 8).tolist(),
    }
    rules = Rules(scale="difference", looks=(3, 5, 8))
    pairs = [("B", "A"), ("C", "A")]
    first = decide(outcomes({v: x[:3] for v, x in runs.items()}), pairs, rules)
    assert (first.open, first.wanted) == ([("C", "A")], {"C": 5, "A": 5})
    shown = {"A": runs["A"][:5], "B": runs["B"][:3], "C": runs["C"][:5]}
    second = decide(outcomes(shown), pairs, rules)
    assert second.decisions["B", "A"] == first.decisions["B", "A"]
    assert second.wanted == {"C": 8, "A": 8}
    whole = decide(outcomes(runs), pairs, rules)
    # seeds beyond the look that decided change nothing
    assert whole.decisions["B", "A"] == first.decisions["B", "A"]
    assert whole.wanted == {}


def test_a_look_waits_for_all_runs_of_its_open_comparisons() -> None:
    before = look(2)
    assert before.open == [("B", "A"), ("C", "A")]
    assert before.wanted == {"A": 3, "B": 3, "C": 3}
    assert all("first look" in d.reason for d in before.decisions.values())
    at_three = look(3)
    between = look(3, C=VAGUE[:4])
    assert between.decisions == at_three.decisions
    assert between.wanted == at_three.wanted
    # a later seed does not stand in for one that has not ended
    gap = look(3, C=[2.0, None, 1.2, 2.6])
    assert gap.wanted == {"A": 3, "B": 3, "C": 3}
    failed = look(3, C=[2.0, math.nan, 1.2])
    assert failed.decisions["C", "A"].failed == 1
