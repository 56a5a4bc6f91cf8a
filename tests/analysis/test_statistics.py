"""Against scipy and textbook numbers."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

from analysis.judging.statistics import (
    detectable_difference,
    difference,
    holm,
    mean,
    p_value,
    probability_of_improvement,
    relative_change,
    seeds_needed,
)

# Student (1908), table 1: hours of additional sleep under two drugs, ten patients.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_paired_difference_of_students_sleep_data_is_the_textbook_interval() -> None:
    estimate = difference(SLEEP_2, SLEEP_1)
    assert estimate.n == 10
    assert estimate.value == pytest.approx(1.58)
    # R's t.test(extra ~ group, data = sleep, paired = TRUE) prints this interval.
    assert (estimate.low, estimate.high) == pytest.approx((0.7001142, 2.4598858), abs=1e-7)
    assert not estimate.includes_zero


def test_mean_agrees_with_scipys_t_interval() -> None:
    values = np.random.default_rng(0).normal(30, 4, size=5)
    expected = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    estimate = mean(values)
    assert (estimate.low, estimate.high) == pytest.approx(expected)
    assert estimate.half_width == pytest.approx((expected[1] - expected[0]) / 2)


def test_one_seed_has_a_value_and_no_interval() -> None:
    for estimate in (mean([3.0]), difference([3.0], [4.0]), relative_change([3.0], [4.0])):
        assert estimate.n == 1
        assert math.isfinite(estimate.value)
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)
        assert estimate.includes_zero
    assert math.isnan(mean([]).value)
    assert math.isnan(relative_change([], []).value)


def test_relative_change_is_bounded_where_a_paired_t_test_stops_rejecting() -> None:
    noise = np.random.default_rng(1)
    baseline = noise.normal(40, 3, size=6)
    values = 0.9 * baseline + noise.normal(0, 1, size=6)
    estimate = relative_change(values, baseline)
    assert estimate.value == pytest.approx(values.mean() / baseline.mean() - 1)
    for bound in (estimate.low, estimate.high):
        assert stats.ttest_rel(values, (1 + bound) * baseline).pvalue == pytest.approx(0.05)


def test_relative_change_excludes_zero_just_when_the_difference_does() -> None:
    noise = np.random.default_rng(2)
    for _ in range(300):
        baseline = noise.normal(40, 3, size=3)
        values = baseline - noise.normal(2, 2, size=3)
        change, absolute = relative_change(values, baseline), difference(values, baseline)
        assert change.includes_zero == absolute.includes_zero


def test_relative_change_is_unbounded_when_the_baseline_may_be_zero() -> None:
    estimate = relative_change([1.0, 2.0], [0.1, 9.0])
    assert (estimate.low, estimate.high) == (-math.inf, math.inf)
    assert estimate.includes_zero


def test_intervals_cover_the_truth_at_their_nominal_rate() -> None:
    noise = np.random.default_rng(3)
    seeds = noise.normal(0, 3, size=(2000, 4))
    baseline = 40 + seeds + noise.normal(0, 1, size=seeds.shape)
    values = 34 + seeds + noise.normal(0, 1, size=seeds.shape)
    for interval, truth in ((difference, -6.0), (relative_change, 34 / 40 - 1)):
        found = [interval(v, b) for v, b in zip(values, baseline, strict=True)]
        covered = np.mean([estimate.low <= truth <= estimate.high for estimate in found])
        assert 0.935 < covered < 0.965


def test_the_sleep_datas_p_value_is_the_textbooks() -> None:
    assert p_value(SLEEP_2, SLEEP_1) == pytest.approx(0.002833, abs=1e-6)  # R's t.test, paired
    assert math.isnan(p_value([1.0], [2.0]))
    assert p_value([2, 3], [1, 2]) == 0
    assert p_value([2, 3], [2, 3]) == 1


def test_holm_is_holms() -> None:
    assert list(holm([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    noise = np.random.default_rng(6)
    for size in (1, 2, 7, 40):
        p = noise.uniform(0, 0.3, size)
        assert list(holm(p)) == pytest.approx(list(multipletests(p, method="holm")[1]))
    with_gap = holm([0.02, math.nan, 0.03])
    assert math.isnan(with_gap[1])
    assert list(with_gap[[0, 2]]) == pytest.approx([0.04, 0.04])
    assert len(holm([])) == 0


def test_probability_of_improvement_is_the_area_under_the_curve() -> None:
    noise = np.random.default_rng(7)
    values, baseline = noise.integers(0, 9, 7), noise.integers(2, 12, 5)
    found = probability_of_improvement(values, baseline)
    labels, scores = [0] * 7 + [1] * 5, [*values, *baseline]
    assert found.value == pytest.approx(roc_auc_score(labels, scores))
    u = stats.mannwhitneyu(baseline, values).statistic
    assert found.value == pytest.approx(u / 35)
    assert found.n == 5


def test_one_run_each_is_wilsons_interval_of_one_trial() -> None:
    for values, baseline, successes in (([1], [2], 1), ([2], [1], 0)):
        found = probability_of_improvement(values, baseline)
        expected = proportion_confint(successes, 1, method="wilson")
        assert (found.low, found.high) == pytest.approx(expected)


def test_complete_separation_of_a_few_seeds_is_not_certainty() -> None:
    found = probability_of_improvement([1, 2, 3], [4, 5, 6])
    assert (found.value, found.high) == (1, 1)
    assert found.low == pytest.approx(0.501, abs=1e-3)
    assert math.isnan(probability_of_improvement([], [1.0]).value)


@pytest.mark.parametrize(("seeds", "shift"), [(3, 1), (5, 0), (5, 2), (10, 1)])
def test_probability_of_improvement_covers_near_the_nominal_rate(seeds: int, shift: float) -> None:
    noise = np.random.default_rng(8)
    truth = stats.norm.cdf(shift / 2**0.5)
    found = [
        probability_of_improvement(noise.normal(0, 1, seeds), noise.normal(shift, 1, seeds))
        for _ in range(2000)
    ]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in found])
    assert 0.92 < covered < 0.97


def test_seeds_needed_are_the_textbook_sample_sizes() -> None:
    # Cohen's small, medium and large effects, paired, two-sided, 5 %, power 80 %: G*Power's n.
    assert [seeds_needed(effect, 1) for effect in (0.2, 0.5, 0.8)] == [199, 34, 15]
    assert seeds_needed(-1, 2) == 34
    assert seeds_needed(100, 1) == 2
    assert seeds_needed(1, 0) == 2
    assert seeds_needed(0, 1) == math.inf


def test_power_is_statsmodels() -> None:
    for n in (4, 10, 50):
        effect = detectable_difference(3.0, n) / 3
        assert TTestPower().power(effect, n, 0.05) == pytest.approx(0.8)
    assert math.isnan(detectable_difference(3.0, 1))
    assert math.isnan(detectable_difference(math.nan, 3))


def test_as_many_seeds_as_needed_find_the_difference_four_times_in_five() -> None:
    noise = np.random.default_rng(9)
    n = int(seeds_needed(2, 1.5))
    runs = noise.normal(2, 1.5, size=(4000, n))
    found = np.mean([not difference(run, np.zeros(n)).includes_zero for run in runs])
    assert 0.8 - 0.02 < found < 0.9


def test_of_an_unknown_spread_or_difference_no_number_of_seeds_is_told() -> None:
    assert math.isnan(seeds_needed(1.0, math.nan))
    assert math.isnan(seeds_needed(math.nan, 1.0))


def test_a_widened_interval_excludes_zero_just_when_its_p_says_so() -> None:
    noise = np.random.default_rng(0)
    rejected = 0
    for _ in range(300):
        values, baseline = noise.normal(10.5, 1, 4), noise.normal(12, 1, 4)
        estimate = difference(values, baseline, widened=1.4)
        change = relative_change(values, baseline, widened=1.4)
        p = p_value(values, baseline, 1.4)
        assert (p < 0.05) == (not estimate.includes_zero) == (not change.includes_zero)
        assert estimate.half_width == pytest.approx(1.4 * difference(values, baseline).half_width)
        rejected += p < 0.05
    assert 30 < rejected < 270
