"""Variants at their own best point, chosen without a look at what is compared."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import NothingToShow, Study, tables
from analysis.judging import (
    answers,
    comparison,
    distances,
    effects,
    paired,
    statistics,
    tuning,
)
from analysis.loading.load import load
from mpdit.decisions.family import Rules, decide
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

Found = dict[tuple[str, float], Sequence[float | None]]


def tuned_study(path: Path, found: Found, repeats: Found | None = None) -> Study:
    """Variants a, b × learning rates; a distance for each seed, None for a run that failed."""
    entries = []
    for (variant, rate), values in found.items():
        for seed, distance in enumerate(values):
            flags = {"cosine_attention": variant == "b"}
            run = synthetic.config(flags, seed, learning_rate=rate)
            folder = RunDir(path / f"{variant}_lr-{rate}_s{seed}-{run.id}")
            synthetic.write_run(folder, run, distance or 0.0)
            if distance is None:
                (folder.path / "evaluation.jsonl").unlink()
            for of_set, repeat in enumerate((repeats or {}).get((variant, rate), ()), start=100):
                synthetic.write_evaluation(folder, repeat or 0.0, of_set, role="repeat")
            tune = {"tune": {"train.learning_rate": rate}}
            entries.append(synthetic.entry(folder, run, variant) | tune)
    return load(synthetic.write_listing(path, entries))


def test_each_seed_is_taken_at_the_point_that_is_best_by_the_others(tmp_path: Path) -> None:
    study = tuned_study(
        tmp_path,
        {
            # by all seeds 1e-3 is best; without seed 2 it is 1e-2
            ("a", 1e-3): (10.0, 11.0, 1.0),
            ("a", 1e-2): (8.0, 9.0, 9.0),
            ("b", 1e-3): (5.0, 6.0, 7.0),
            ("b", 1e-2): (6.0, 7.0, 8.0),
        },
    )
    table = comparison.distances(study)
    a = table[table["variant"] == "a"].set_index("seed")
    # seed 0: means 6 and 9; seed 1: 5.5 and 8.5; seed 2: 10.5 and 8.5
    assert dict(a["value"]) == {0: 10, 1: 11, 2: 9}
    assert list(a["tuned"].str[-5:]) == ["0.001", "0.001", " 0.01"]
    assert list(paired.values(table, "b")) == [5, 6, 7]
    points = tuning.curve(study)
    assert list(points["mean"]) == pytest.approx([22 / 3, 26 / 3, 6, 7])
    assert list(points["best"]) == [True, False, True, False]
    assert list(points["chosen"]) == [2, 1, 3, 0]
    assert list(points["tune.train.learning_rate"]) == [1e-3, 1e-2, 1e-3, 1e-2]
    assert list(points["seeds"]) == [3] * 4
    assert points["low"].iloc[2] == pytest.approx(6 - 4.302653 / 3**0.5)
    # pictures show one point
    shown = comparison.chosen(study)
    assert set(shown["tune.train.learning_rate"]) == {1e-3}
    assert len(shown) == 6
    assert list(tables.ladder(study)["tuned"]) == [
        "train.learning_rate 0.001 (2), train.learning_rate 0.01 (1)",
        "train.learning_rate 0.001",
    ]


def test_a_point_at_which_a_seed_failed_is_not_the_best(tmp_path: Path) -> None:
    study = tuned_study(
        tmp_path,
        {
            ("a", 1e-3): (10.0, 11.0, 12.0),
            ("a", 1e-2): (2.0, 3.0, None),
            ("b", 1e-3): (5.0, 6.0, 7.0),
        },
    )
    assert list(paired.values(comparison.distances(study), "a")) == [10, 11, 12]
    points = tuning.curve(study)
    assert list(points["best"]) == [True, False, True]
    assert list(points["seeds"]) == [3, 2, 3]


def test_with_one_seed_other_samples_of_the_run_choose(tmp_path: Path) -> None:
    study = tuned_study(
        tmp_path,
        {("a", 1e-3): (9.0,), ("a", 1e-2): (8.0,), ("b", 1e-3): (7.0,), ("b", 1e-2): (6.0,)},
        repeats={("a", 1e-3): (8.5, 8.6), ("a", 1e-2): (9.0, 9.1)},
    )
    table = comparison.distances(study).set_index("variant")
    assert table.loc["a", "value"] == 9  # lucky samples made it 8 at 1e-2
    assert table.loc["b", "value"] == 6
    said = tuning.remarks(study)
    assert said[0].startswith("train.learning_rate of a was chosen on other samples")
    assert said[1].startswith("train.learning_rate of b was chosen on the compared distances")
    assert "too low" in said[1]
    assert math.isnan(tables.ladder(study)["low"].iloc[1])


def test_the_remarks_name_what_was_done_and_who_is_at_the_edge(tmp_path: Path) -> None:
    middle = (5.0, 5.1)
    study = tuned_study(
        tmp_path,
        {
            **{("a", rate): (9.0, 9.1) for rate in (1e-4, 1e-3)},
            ("a", 1e-2): middle,
            ("b", 1e-4): (9.0, 9.1),
            ("b", 1e-3): middle,
            ("b", 1e-2): (9.0, 9.1),
        },
    )
    assert tuning.remarks(study) == [
        "train.learning_rate of every variant was chosen for each seed on the other seeds; "
        "intervals of differences are therefore up to 1.4 times as wide",
        "a: the best point is at the edge of the tried range (train.learning_rate 0.01); "
        "a better one may lie outside it",
    ]


def test_a_variant_that_is_not_tuned_yet_is_named(tmp_path: Path) -> None:
    rates = (1e-4, 1e-3, 1e-2)
    found: Found = {("a", rate): (9.0 if rate != 1e-3 else 5.0, 9.1) for rate in rates}
    found |= {("b", rate): (None, None) for rate in rates}
    found["b", 1e-4] = (4.0, 4.1)
    assert tuning.remarks(tuned_study(tmp_path, found)) == [
        "train.learning_rate of a was chosen for each seed on the other seeds; "
        "intervals of differences are therefore up to 1.4 times as wide",
        "b: evaluated at 1 of 3 points of train.learning_rate; the best may still be missing",
    ]


def test_a_study_that_tunes_nothing_has_no_curve(study: Study) -> None:
    with pytest.raises(NothingToShow):
        tuning.curve(study)
    assert tuning.remarks(study) == []
    assert (comparison.distances(study)["tuned"] == "").all()


def compared(a: np.ndarray, b: np.ndarray, honest: bool) -> statistics.Estimate:
    """The difference of two variants' distances (seeds × points), each at its best."""

    def at_best(values: np.ndarray) -> np.ndarray:
        if not honest:
            return values[:, values.mean(axis=0).argmin()]
        points = tuning.leave_one_out(values)
        return np.array([row[point] for row, point in zip(values, points, strict=True)])

    points = (values.shape[1] for values in (a, b))
    widened = tuning.widening(len(a), *points) if honest else 1.0
    return statistics.mean(at_best(a) - at_best(b), widened)


def test_a_variant_does_not_win_by_being_tuned_more() -> None:
    """a has ten points that are all as good as b's one: the true difference is zero."""
    noise = np.random.default_rng(0)
    studies = [
        (noise.normal(20, 1, (5, 10)), noise.normal(20, 1, (5, 1)), seeds)
        for seeds in noise.normal(0, 3, (1500, 5, 1))
    ]
    honest, at_a_glance = (
        [compared(a + seeds, b + seeds, honest) for a, b, seeds in studies]
        for honest in (True, False)
    )
    assert np.mean([estimate.value for estimate in honest]) == pytest.approx(0, abs=0.05)
    assert np.mean([estimate.value for estimate in at_a_glance]) < -0.6


def test_leaving_one_out_finds_the_best_point_where_there_is_one() -> None:
    noise = np.random.default_rng(1)
    truth = np.array([30.0, 24, 20, 23, 40])
    found = [
        compared(truth + noise.normal(0, 1, (4, 5)), 25 + noise.normal(0, 1, (4, 1)), True)
        for _ in range(1500)
    ]
    assert np.mean([estimate.value for estimate in found]) == pytest.approx(-5, abs=0.1)
    covered = np.mean([estimate.low <= -5 <= estimate.high for estimate in found])
    assert covered > 0.93


@pytest.mark.parametrize(("seeds", "points"), [(3, 3), (5, 3), (10, 5), (10, 10)])
def test_intervals_of_two_tuned_variants_hold_the_truth_where_all_points_are_alike(
    seeds: int, points: int
) -> None:
    noise = np.random.default_rng(2)
    found = [compared(*noise.normal(20, 1, (2, seeds, points)), honest=True) for _ in range(1000)]
    assert 0.93 < np.mean([estimate.low <= 0 <= estimate.high for estimate in found]) < 0.97


def test_what_was_not_tuned_is_not_widened(study: Study) -> None:
    assert tuning.widening(3, 1, 1) == 1
    assert tuning.widening(3, 1, 0) == 1
    assert (comparison.distances(study)["points"] == 1).all()
    plain = decide(answers.outcomes(study), comparison.pairs(study), distances.rules(study))
    assert answers.family(study).decisions == plain.decisions


def test_the_decisions_on_a_tuned_study_are_widened(tmp_path: Path) -> None:
    study = tuned_study(
        tmp_path,
        {
            ("a", 1e-3): (10.0, 11.0, 13.0),
            ("a", 1e-2): (18.0, 19.0, 19.0),
            ("b", 1e-3): (15.0, 16.0, 17.0),
            ("b", 1e-2): (6.0, 9.0, 8.0),
        },
    )
    factor = tuning.widening(3, 2, 2)
    assert 1.2 < factor < 1.4
    pairs = comparison.pairs(study)
    plain = decide(answers.outcomes(study), pairs, distances.rules(study)).decisions["b", "a"]
    found = answers.family(study).decisions["b", "a"]
    assert (found.effect, found.se) == (plain.effect, pytest.approx(factor * plain.se))
    table = comparison.distances(study)
    row = tables.ladder(study).set_index("variant").loc["b"]
    mean = statistics.mean(paired.values(table, "b"))
    assert row["half_width"] == pytest.approx(tuning.widening(3, 2, 0) * mean.half_width)


@pytest.mark.long
@pytest.mark.parametrize(("seeds", "points"), [(3, 3), (5, 3)])
def test_effects_of_a_tuned_factorial_hold_the_truth(seeds: int, points: int) -> None:
    """Two crossed factors without effect, all points alike: the worst case."""
    noise, held = np.random.default_rng(3), []
    grid = pd.DataFrame(itertools.product((False, True), (False, True)), columns=["a", "b"])
    for _ in range(400):
        rows = []
        for cell in grid.to_dict("records"):
            values = noise.normal(20, 1, (seeds, points))
            chosen = tuning.leave_one_out(values)
            rows += [
                {**cell, "seed": seed, "value": values[seed, point]}
                for seed, point in enumerate(chosen)
                if point is not None
            ]
        widened = tuning.widening(seeds, points, points)
        fit = effects.factorial(pd.DataFrame(rows), ["a", "b"], Rules(scale="difference"), widened)
        held.append(all(e.estimate.includes_zero for e in fit.of(1)))
    assert np.mean(held) > 0.93


def test_leave_one_out_by_hand() -> None:
    nan = math.nan
    assert tuning.leave_one_out(np.array([[1.0, 2.0]])) == [None]
    assert tuning.leave_one_out(np.array([[1.0, 2.0], [3.0, 1.0]])) == [1, 0]
    assert tuning.leave_one_out(np.array([[1.0, nan], [3.0, 1.0]])) == [0, 0]
    assert tuning.leave_one_out(np.array([[nan, 2.0], [3.0, nan]])) == [None, None]
