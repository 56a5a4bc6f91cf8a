"""The cost of decisions, and how often they err: ``python benchmarks/decisions.py [--json]``.

Studies are simulated with the quickstart's noise: a standard deviation of 0.178 between seeds on
the log scale, 0.146 with repeats. The statistics are those of ``mpdit.decisions``.

coverage            studies in which all intervals hold the truth, by the ratio of the standard
                    deviations (1:1, 1:2, 1:4); the worst of several arrangements, 3 seeds
familywise          studies without any effect that report one, the worse of 3 seeds and four looks
power, power_today  share of effects of 3 standard deviations that are called, seven variants of
                    3 seeds; today's are paired t tests with Holm's correction
equivalence_error   comparisons called equivalent whose true effect is the margin
runs_ratio          runs of the staged design (tuning apart with racing, then looks) over those of
                    the fixed one (all seeds at all points, paired t tests of cross-validated
                    points, widened, Holm) at the level at which it has as many right verdicts and
                    errs in as many studies

Prints each beside its promise, and ends with status 1 where a promise is not kept. A verdict is
wrong if it has the wrong sign, or if the variant's best point equals the baseline's. With
``--quick`` few studies are simulated: too few to judge by.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.judging.tuning import leave_one_out, widening
from mpdit.decisions.family import LEVEL, Family, Pair, Rules, decide
from mpdit.decisions.racing import best, survivors

LEVELS = np.geomspace(0.001, 0.9, 60)
"""Levels of the fixed design; the one is sought at which it errs as often as the staged design."""
MOST_SEEDS = 60
NOISE = 0.146
VARIANTS = [*"ABCDEFG"]
PAIRS: list[Pair] = [(variant, "A") for variant in VARIANTS[1:]]
LOOKS = (3, 5, 8, 12)
TUNING_SEEDS = 2
RATES = np.log([1.0, 1.6, 1.15, 1.0, 1.3])
"""The loss at each of five tuned points; the variants' best points differ."""

ARRANGEMENTS: dict[str, list[list[int]]] = {
    "1:1": [[1] * 7, [1] * 3, [1, 1]],
    "1:2": [[2, *[1] * 6], [1] * 6 + [2], [1, 2] * 3 + [1], [2, 1, 1], [1, 2]],
    "1:4": [[4, *[1] * 6], [1] * 6 + [4], [1, 4] * 3 + [1], [4, 1, 1], [1, 4]],
}


def study(values: np.ndarray, rules: Rules) -> Family:
    """The decisions on values (variants × seeds), all against the first."""
    names = VARIANTS[: len(values)]
    runs = {name: dict(enumerate(row)) for name, row in zip(names, values.tolist(), strict=True)}
    return decide(runs, [(name, "A") for name in names[1:]], rules)


def holds(found: Family, truth: Callable[[str], float]) -> bool:
    return all(d.low <= truth(d.variant) <= d.high for d in found.decisions.values())


def coverage(noise: np.random.Generator, studies: int) -> dict[str, float]:
    rules = Rules(scale="difference")
    return {
        ratio: min(
            float(
                np.mean(
                    [
                        holds(study(noise.normal(0, np.array(sds)[:, None], (len(sds), 3)), rules),
                              lambda _: 0.0)
                        for _ in range(studies)
                    ]
                )
            )
            for sds in arrangements
        )
        for ratio, arrangements in ARRANGEMENTS.items()
    }  # fmt: skip


def familywise(noise: np.random.Generator, studies: int) -> float:
    rates = []
    for rules, seeds in ((Rules("difference"), 3), (Rules("difference", looks=LOOKS), 12)):
        found = (study(noise.normal(size=(7, seeds)), rules) for _ in range(studies))
        rates.append(np.mean([any(not d.is_open for d in f.decisions.values()) for f in found]))
    return float(max(rates))


def holm(p: np.ndarray) -> np.ndarray:
    """The p of tests (last axis) corrected by Holm's procedure."""
    order = np.argsort(p, axis=-1)
    stepped = np.take_along_axis(p, order, -1) * np.arange(p.shape[-1], 0, -1)
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, np.maximum.accumulate(stepped, axis=-1), -1)
    return corrected


def power(noise: np.random.Generator, studies: int) -> tuple[float, float]:
    effects, rules = 3.0 * (np.arange(7) > 0)[:, None], Rules(scale="difference")
    now, today = [], []
    for _ in range(studies):
        values = noise.normal(size=(7, 3)) + effects
        now.append(np.mean([not d.is_open for d in study(values, rules).decisions.values()]))
        p = holm(stats.ttest_rel(values[1:], values[:1], axis=1).pvalue)
        today.append(np.mean(p < LEVEL))
    return float(np.mean(now)), float(np.mean(today))


def equivalence_error(noise: np.random.Generator, studies: int) -> float:
    """At the worst effect, the margin itself, with enough seeds to find equivalence."""
    rules = Rules(margin=0.2)
    effects = np.log1p(0.2) * (np.arange(7) > 0)[:, None]
    drawn = (np.exp(noise.normal(0, NOISE, (7, 12)) + effects) for _ in range(studies))
    found = (study(values, rules) for values in drawn)
    return float(np.mean([d.verdict == "equivalent" for f in found for d in f.decisions.values()]))


# Runs ---------------------------------------------------------------------------------------------


def truths(noise: np.random.Generator) -> np.ndarray:
    """Log distances (variants × points): a third of the variants differ clearly, a third little."""
    effects = np.array([0, -0.6, -0.4, 0.3, -0.2, 0.1, 0.0])
    effects[1:] = noise.permutation(effects[1:])
    found: np.ndarray = effects[:, None] + np.array([noise.permutation(RATES) for _ in effects])
    return found


Run = Callable[[int, int], float]
"""A run's value by variant and point."""


def staged(truth: np.ndarray, run: Run) -> tuple[int, dict[str, bool]]:
    """Runs used, and for each comparison whether it is called with the right sign."""
    runs, chosen = 0, {}
    for index, variant in enumerate(VARIANTS):
        tried: dict[int, list[float]] = {point: [] for point in range(truth.shape[1])}
        for seed in range(TUNING_SEEDS):
            for point in survivors(tried, seed):
                tried[point].append(run(index, point))
                runs += 1
        found = best(tried)
        assert found is not None
        chosen[variant] = found
    rules, values = Rules(looks=LOOKS), {variant: dict[int, float]() for variant in VARIANTS}
    family = decide(values, PAIRS, rules)
    while family.wanted:
        for variant, seeds in family.wanted.items():
            for seed in range(len(values[variant]), seeds):
                values[variant][seed] = run(VARIANTS.index(variant), chosen[variant])
                runs += 1
        family = decide(values, PAIRS, rules)
    return runs, {
        d.variant: _is_right(truth, VARIANTS.index(d.variant), d.verdict == "better")
        for d in family.decisions.values()
        if not d.is_open
    }


def _is_right(truth: np.ndarray, variant: int, is_better: bool) -> bool:
    effect = truth[variant].min() - truth[0].min()
    return bool(effect) and (effect < 0) == is_better


def fixed(truth: np.ndarray, run: Run, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Today: every seed at every point, each seed's point chosen on the other seeds.

    Returns:
        The corrected p of each comparison, and whether its sign is right.
    """
    values = np.array(
        [
            [[run(variant, point) for point in range(truth.shape[1])] for _ in range(seeds)]
            for variant in range(len(truth))
        ]
    )
    points = [leave_one_out(of) for of in values]
    at_best = np.array(
        [
            [row[p] for row, p in zip(of, at, strict=True)]
            for of, at in zip(values, points, strict=True)
        ]
    )
    differences = at_best[1:] - at_best[:1]
    widened = widening(seeds, truth.shape[1], truth.shape[1])
    t = differences.mean(axis=1) * seeds**0.5 / differences.std(axis=1, ddof=1) / widened
    right = [_is_right(truth, i + 1, bool(x < 0)) for i, x in enumerate(t.tolist())]
    return holm(2 * stats.t.sf(np.abs(t), seeds - 1)), np.array(right)


@dataclass(frozen=True)
class DesignCost:
    """The averages of a design's studies.

    Attributes:
        runs: runs of a study.
        right: right verdicts of a study.
        wrong: the fraction of studies with a wrong verdict.
    """

    runs: float
    right: float
    wrong: float


def of_fixed(truth: Sequence[np.ndarray], run_of: Callable[[np.ndarray], Run], seeds: int,
             wrong: float) -> DesignCost:  # fmt: skip
    """The fixed design at the largest level at which no more studies err than ``wrong``."""
    p, right = map(np.array, zip(*(fixed(t, run_of(t), seeds) for t in truth), strict=True))
    runs = len(VARIANTS) * len(RATES) * seeds
    found = DesignCost(runs, 0.0, 0.0)
    for level in LEVELS:
        errs = float(np.mean(((p < level) & ~right).any(axis=1)))
        if errs <= wrong:
            found = DesignCost(runs, float(((p < level) & right).sum(axis=1).mean()), errs)
    return found


def runs_ratio(noise: np.random.Generator, studies: int) -> tuple[float, DesignCost, DesignCost]:
    """The ratio, and the costs of the two designs."""

    def run_of(truth: np.ndarray) -> Run:
        return lambda variant, point: float(np.exp(truth[variant, point] + noise.normal(0, NOISE)))

    grids = [truths(noise) for _ in range(studies)]
    found = [staged(truth, run_of(truth)) for truth in grids]
    now = DesignCost(
        float(np.mean([used for used, _ in found])),
        float(np.mean([sum(called.values()) for _, called in found])),
        float(np.mean([not all(called.values()) for _, called in found])),
    )
    # the smallest number of seeds with as many right verdicts
    low, high = 3, MOST_SEEDS
    while low < high:
        seeds = (low + high) // 2
        enough = of_fixed(grids, run_of, seeds, now.wrong).right >= now.right
        low, high = (low, seeds) if enough else (seeds + 1, high)
    today = of_fixed(grids, run_of, low, now.wrong)
    return now.runs / today.runs, now, today


def at_most(what: str, share: float, promised: float) -> bool:
    """One line: measured and promised."""
    print(f"{what:50} {share:6.3f}  at most {promised:.2f}")
    return share <= promised


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--json", action="store_true", help="one object; what the designs cost on stderr"
    )
    parser.add_argument("--quick", action="store_true", help="few studies: seconds, and not exact")
    given = parser.parse_args(arguments)
    studies = 40 if given.quick else 2000
    noise = np.random.default_rng(0)
    covered = coverage(noise, studies)
    ratio, staged_cost, fixed_cost = runs_ratio(noise, max(20, studies // 5))
    now, today = power(noise, studies)
    false, equal = familywise(noise, studies), equivalence_error(noise, max(20, studies // 4))
    found = {
        "runs_ratio": round(ratio, 3),
        "coverage": covered,
        "familywise": false,
        "power": round(now, 3),
        "power_today": round(today, 3),
        "equivalence_error": equal,
    }
    for name, cost in (("staged", staged_cost), ("fixed", fixed_cost)):
        print(
            f"{name} design: {cost.runs:.0f} runs a study, {cost.right:.2f} right verdicts of "
            f"{len(PAIRS)}, a wrong one in {100 * cost.wrong:.1f} % of studies",
            file=sys.stderr if given.json else sys.stdout,
        )
    if given.json:
        print(json.dumps(found))
        return
    kept = [
        at_most("runs of the staged design over the fixed one's", ratio, 0.5),
        *(at_most(f"studies with an interval that fails, SD {key}", 1 - value, least)
          for (key, value), least in zip(covered.items(), (0.05, 0.07, 0.10), strict=True)),
        at_most("studies with a false verdict", false, 0.05),
        at_most("equivalences that are none", equal, 0.05),
        at_most("effects missed, seven variants of three seeds", 1 - now, 1 - 3 * 0.12),
    ]  # fmt: skip
    print(f"power: {now:.2f}, today {today:.2f}")
    sys.exit(0 if given.quick or all(kept) else 1)


if __name__ == "__main__":
    main()
