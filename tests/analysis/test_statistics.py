"""Against scipy and textbook numbers."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.judging.statistics import mean, relative_change

# Student (1908), table 1: hours of additional sleep under two drugs, ten patients.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_mean_change_of_students_sleep_data_is_the_textbook_interval() -> None:
    estimate = mean(np.subtract(SLEEP_2, SLEEP_1))
    assert (estimate.n, estimate.value) == (10, pytest.approx(1.58))
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
    for estimate in (mean([3.0]), relative_change([3.0], [4.0])):
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
        change, absolute = relative_change(values, baseline), mean(values - baseline)
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
    truth = 34 / 40 - 1
    found = [relative_change(v, b) for v, b in zip(values, baseline, strict=True)]
    covered = np.mean([estimate.low <= truth <= estimate.high for estimate in found])
    assert 0.935 < covered < 0.965
