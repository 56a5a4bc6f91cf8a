"""Against textbook factorial experiments, and simulations with known effects."""

import itertools
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.judging import effects
from analysis.judging.effects import Effect, Factorial
from mpdit.decisions.family import LEVEL, Rules
from mpdit.disk.yamlfile import parse
from mpdit.grid.grid import parse_grid
from mpdit.grid.plan import make_plan

# Box, Hunter and Hunter, Statistics for Experimenters, 2nd edition, table 5.3: the pilot plant.
# Yields of two runs, in standard order: temperature, concentration, catalyst.
PILOT_PLANT = [(59, 61), (74, 70), (50, 58), (69, 67), (50, 54), (81, 85), (46, 44), (79, 81)]

# Tippett (1950), R's warpbreaks: breaks of nine looms by wool (A, B) and tension (L, M, H).
WARP_BREAKS = {
    ("A", "L"): (26, 30, 54, 25, 70, 52, 51, 26, 67),
    ("A", "M"): (18, 21, 29, 17, 12, 18, 35, 30, 36),
    ("A", "H"): (36, 21, 24, 18, 10, 43, 28, 15, 26),
    ("B", "L"): (27, 14, 29, 19, 29, 31, 41, 20, 44),
    ("B", "M"): (42, 26, 19, 16, 39, 28, 21, 39, 29),
    ("B", "H"): (20, 21, 24, 17, 13, 15, 15, 16, 28),
}


def factorial(runs: pd.DataFrame, factors: list[str]) -> Factorial:
    return effects.factorial(runs, factors, Rules(scale="difference"))


def by_name(found: Factorial) -> dict[str, Effect]:
    return {" × ".join(effect.factors): effect for effect in found.effects}


def pilot_plant() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "value": PILOT_PLANT[order][run],
            "seed": 0,
            **{name: bool(order >> bit & 1) for bit, name in enumerate("TCK")},
        }
        for run, order in itertools.product(range(2), range(8))
    )


def test_the_pilot_plants_effects_are_the_books() -> None:
    found = factorial(pilot_plant(), list("TCK"))
    values = {name: effect.estimate.value for name, effect in by_name(found).items()}
    assert values == pytest.approx(
        {"T": 23, "C": -5, "K": 1.5, "T × C": 1.5, "T × K": 10, "C × K": 0}, abs=1e-9
    )
    # The book's pooled variance of repeats is 8 from 8 degrees of freedom. The interaction of all
    # three, 0.5, is not among ours: its square, 16 · (0.5 / 2)², and its degree are with the rest.
    assert found.degrees == 9
    assert found.residual_sd**2 * 9 == pytest.approx(8 * 8 + 1)
    assert found.left_out == ()
    temperature = by_name(found)["T"].estimate
    # half of the level is for the three main effects, half for the three interactions
    half = stats.t.ppf(1 - LEVEL / 2 / 2 / 3, 9) * (65 / 9 / 4) ** 0.5
    assert (temperature.low, temperature.high) == pytest.approx((23 - half, 23 + half))
    assert temperature.n == 16


def test_every_effect_of_eight_flags_is_a_difference_of_means() -> None:
    noise = np.random.default_rng(3)
    settings = list(itertools.product(range(3), *[(False, True)] * 8))
    runs = pd.DataFrame(settings, columns=["seed", *"abcdefgh"])
    runs["value"] = noise.normal(size=len(runs))
    found = factorial(runs, list("abcdefgh"))
    assert (len(found.effects), found.left_out) == (8 + 28, ())
    assert found.degrees == 768 - (3 + 8 + 28)
    for effect in found.effects:
        signs = np.prod([2 * runs[factor] - 1 for factor in effect.factors], axis=0)
        means = [runs["value"][signs == sign].mean() for sign in (1, -1)]
        assert effect.estimate.value == pytest.approx(means[0] - means[1])


def test_a_factor_of_three_levels_agrees_with_r() -> None:
    runs = pd.DataFrame(
        {"value": value, "wool": wool, "tension": tension, "seed": 0}
        for (wool, tension), values in WARP_BREAKS.items()
        for value in values
    )
    found = factorial(runs, ["wool", "tension"])
    # R: summary(lm(breaks ~ wool * tension)), residual standard error 10.94 on 48 degrees.
    assert (found.degrees, round(found.residual_sd, 2)) == (48, 10.94)
    # Its coefficients: woolB -16.333, woolB:tensionM 21.111, woolB:tensionH 10.556.
    wool, middle, high, with_middle, with_high = (effect.estimate for effect in found.effects)
    assert wool.value == pytest.approx(-16.333 + (21.111 + 10.556) / 3, abs=1e-3)
    assert middle.value == pytest.approx(-20.556 + 21.111 / 2, abs=1e-3)
    assert high.value == pytest.approx(-20.000 + 10.556 / 2, abs=1e-3)
    assert (with_middle.value, with_high.value) == pytest.approx((21.111 / 2, 10.556 / 2), abs=1e-3)
    # and its p values of the last two, corrected for two interactions that have half of the level
    assert [e.p for e in found.effects[3:]] == pytest.approx([4 * 0.00570, 4 * 0.15433], abs=2e-5)
    assert [e.levels for e in found.effects[1:3]] == [("M",), ("H",)]


def test_levels_come_in_the_order_of_the_grid() -> None:
    runs = pilot_plant()
    runs["T"] = pd.Categorical(
        runs["T"].map({False: "warm", True: "hot"}), categories=["hot", "warm"]
    )
    assert by_name(factorial(runs, list("TCK")))["T"].estimate.value == pytest.approx(-23)


def test_seeds_are_blocks() -> None:
    runs = pilot_plant()
    runs["seed"] = [0] * 8 + [1] * 8
    plain = factorial(runs, list("TCK"))
    runs.loc[runs["seed"] == 1, "value"] += 500
    blocked = factorial(runs, list("TCK"))
    assert blocked.degrees == 8
    for name, effect in by_name(plain).items():
        moved = by_name(blocked)[name]
        assert moved.estimate.value == pytest.approx(effect.estimate.value, abs=1e-9)
        assert moved.estimate.half_width == pytest.approx(effect.estimate.half_width)


def make_grid(noise: np.random.Generator, sd: float, seeds: int = 3) -> pd.DataFrame:
    """Two flags, of which ``forced`` needs ``norm``, and three modes; effects as in TRUE."""
    rows = []
    for seed in range(seeds):
        offset = noise.normal(0, 5)
        for norm, forced, mode in itertools.product((False, True), (False, True), "abc"):
            if forced and not norm:
                continue
            value = 30 + offset - 4 * norm + 1 * forced + {"a": 0, "b": 2, "c": -3}[mode]
            value -= 3 * (norm and mode == "c")
            value += noise.normal(0, sd)
            rows.append(
                {"value": value, "seed": seed, "norm": norm, "forced": forced, "mode": mode}
            )
    return pd.DataFrame(rows)


TRUE = {
    ("norm",): -4 - 3 / 3,
    ("forced",): 1,
    ("mode", "b"): 2,
    ("mode", "c"): -3 - 3 * 2 / 3,  # two of the three settings that exist have norm
    ("norm × mode", "c"): -3 / 2,
    ("norm × mode", "b"): 0,
    ("forced × mode", "b"): 0,
    ("forced × mode", "c"): 0,
}


def key(effect: Effect) -> tuple[str, ...]:
    levels = [level for level in effect.levels if level is not True]
    return (" × ".join(effect.factors), *levels)


def test_a_combination_that_makes_no_sense_costs_only_its_own_interaction() -> None:
    found = factorial(make_grid(np.random.default_rng(0), 1e-9), ["norm", "forced", "mode"])
    assert found.left_out == ("norm × forced cannot be estimated: no run is 'no norm × forced'",)
    where = {key(effect): dict(effect.where) for effect in found.effects if effect.where}
    assert where[("norm",)] == {"forced": (False,)}
    assert where[("forced",)] == {"norm": (True,)}
    assert ("mode", "c") not in where
    values = {key(effect): effect.estimate.value for effect in found.effects}
    assert values == pytest.approx(TRUE, abs=1e-6)


@pytest.mark.long
def test_the_intervals_of_all_effects_hold_together() -> None:
    noise, factors = np.random.default_rng(1), ["norm", "forced", "mode"]
    held = []
    for _ in range(500):
        found = factorial(make_grid(noise, 1.0), factors)
        held.append(all(e.estimate.low <= TRUE[key(e)] <= e.estimate.high for e in found.effects))
    assert np.mean(held) > 0.93


@pytest.mark.long
def test_false_findings_among_all_effects_are_rare() -> None:
    noise = np.random.default_rng(2)
    grid = pd.DataFrame(
        itertools.product(range(3), *[(False, True)] * 4), columns=["seed", *"abcd"]
    )
    found = [
        factorial(grid.assign(value=noise.normal(size=len(grid))), list("abcd")).effects
        for _ in range(300)
    ]
    assert np.mean([any(e.is_conclusive for e in main) for main in found]) < 0.085
    for effect in found[0]:
        assert (effect.p < LEVEL) == (not effect.estimate.includes_zero)


def crossing() -> pd.DataFrame:
    """b does nothing without a, and 8 with it; a adds 2 besides; c adds 5."""
    noise = np.random.default_rng(4)
    grid = pd.DataFrame(itertools.product(range(3), *[(False, True)] * 3), columns=["seed", *"abc"])
    value = 20 + 2 * grid["a"] - 0.01 * grid["b"] + 8 * (grid["a"] & grid["b"]) + 5 * grid["c"]
    return grid.assign(value=value + noise.normal(0, 0.1, len(grid)))


def test_an_interaction_that_crosses_an_effect_is_named_with_both_of_its_sizes() -> None:
    found = by_name(factorial(crossing(), list("abc")))
    [dependence] = found["b"].depends
    assert (dependence.factor, dependence.levels) == ("a", (False, True))
    assert dependence.effects == pytest.approx((-0.01, 8), abs=0.2)
    assert found["c"].depends == ()


def test_a_fraction_of_a_grid_has_its_main_effects() -> None:
    grid = pd.DataFrame(
        itertools.product(range(4), *[(False, True)] * 4), columns=["seed", *"abcd"]
    )
    half = grid[grid[list("abcd")].sum(axis=1) % 2 == 0]  # no two of its cells differ in one factor
    value = 10 + 3 * half["a"] - 2 * half["d"]
    noise = np.random.default_rng(5).normal(0, 0.1, len(half))
    found = by_name(factorial(half.assign(value=value + noise), list("abcd")))
    assert found["a"].estimate.value == pytest.approx(3, abs=0.15)
    assert found["d"].estimate.value == pytest.approx(-2, abs=0.15)


def test_ratios_multiply_and_a_widened_effect_is_wider() -> None:
    runs = pilot_plant()
    ratio = effects.factorial(runs, list("TCK"), Rules(scale="ratio"))
    logs = factorial(runs.assign(value=np.log(runs["value"])), list("TCK"))
    assert by_name(ratio)["T"].estimate == by_name(logs)["T"].estimate
    wider = effects.factorial(runs, list("TCK"), Rules(scale="ratio"), widened=1.5)
    halves = (by_name(fit)["T"].estimate.half_width for fit in (wider, ratio))
    assert next(halves) == pytest.approx(1.5 * next(halves))


def test_factors_that_change_together_are_told_apart_from_no_effect() -> None:
    runs = pilot_plant()
    runs["also_T"] = runs["T"]
    found = factorial(runs, ["T", "also_T", "C"])
    assert [effect.factors for effect in found.effects] == [("C",)]
    *_, mixed = found.left_out
    assert mixed.startswith("T, also_T, T × C, also_T × C ")
    assert found.effects[0].estimate.value == pytest.approx(-5)


def test_many_effects_that_cannot_be_estimated_are_two_sentences() -> None:
    names = list("abcdefgh")
    runs = pd.DataFrame({name: [False, True] * 4 for name in names})
    runs = runs.assign(value=np.arange(8.0), seed=np.repeat(range(4), 2))
    found = factorial(runs, names)
    assert found.effects == ()
    pairs, mains = found.left_out
    assert pairs.startswith("a × b, a × c, a × d, a × e, … 24 more ")
    assert mains.startswith("a, b, c, d, … 4 more ")


def test_without_repeats_there_is_a_value_and_no_interval() -> None:
    runs = pilot_plant()[:8]
    found = factorial(runs[~runs["K"]], ["T", "C"])
    assert found.degrees == 0
    for effect in found.effects:
        assert math.isfinite(effect.estimate.value)
        assert math.isnan(effect.estimate.low)
        assert math.isnan(effect.p)
        assert effect.estimate.includes_zero


FACTORIAL = Path(__file__).parents[2] / "experiments" / "factorial.yaml"


def cells(fraction: str) -> tuple[pd.DataFrame, list[str]]:
    """The runs of the eight flags × conditioning, without values."""
    text = FACTORIAL.read_text()
    made = make_plan(parse_grid(text, parse(text, "factorial.yaml"), [f"fraction={fraction}"]))
    runs = pd.DataFrame({**run.axes, "seed": run.seed} for run in made.runs)
    modes = pd.CategoricalDtype(["adaln", "rotation", "rotation_scale"])
    runs = runs.astype({"model.conditioning": modes})
    return runs, [column for column in runs if column != "seed"]


def expected(runs: pd.DataFrame) -> np.ndarray:
    """Some main effects, and interactions with the flag that needs another and between flags."""
    on = {key.removeprefix("model."): column for key, column in runs.items()}
    mode = on["conditioning"].astype(str)
    mean = -0.5 * on["cosine_attention"] + 0.2 * on["mp_silu"] + 0.3 * (mode == "rotation")
    mean = mean - 0.4 * (on["weight_normalization"] & on["mp_silu"])
    mean = mean + 0.3 * (on["forced_weight_normalization"] & (mode == "rotation_scale"))
    return mean.to_numpy(dtype=float)


@pytest.mark.slow
def test_a_two_way_fraction_of_eight_flags_and_conditioning_answers_as_the_whole_grid_would() -> (
    None
):
    whole, factors = cells("all")
    part, _ = cells("two-way")
    assert (len(whole), len(part)) == (1152, 108)
    rules = Rules(scale="difference")

    def fit(runs: pd.DataFrame, values: np.ndarray, fraction: str | None) -> Factorial:
        return effects.factorial(runs.assign(value=values), factors, rules, fraction=fraction)

    truth = {
        (e.factors, e.levels): e.estimate.value for e in fit(whole, expected(whole), None).effects
    }
    assert len(truth) == 10 + 43
    noise, held = np.random.default_rng(6), []
    for _ in range(150):
        drawn = noise.normal(size=len(part))
        found = fit(part, expected(part) + drawn, "two-way").effects
        assert [(e.factors, e.levels) for e in found] == list(truth)
        held.append(
            all(e.estimate.low <= truth[e.factors, e.levels] <= e.estimate.high for e in found)
        )
    # the share that fails is the familywise error too: least squares do not know the truth
    assert np.mean(held) > 0.935  # a standard error of the simulation below 0.95
