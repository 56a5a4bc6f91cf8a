"""Against the distribution that the moderation assumes, and scipy."""

import numpy as np
import pytest
from scipy import stats

from mpdit.decisions.moderation import PRIOR_DEGREES, moderate


def test_the_priors_degrees_are_found_in_many_variances() -> None:
    noise = np.random.default_rng(0)
    true = 5 * 8 / noise.chisquare(8, 20_000)  # scaled inverse chi square, d0 = 8
    degrees = np.full(20_000, 4.0)
    found = moderate(true * noise.chisquare(4, 20_000) / 4, degrees)
    assert found.prior_degrees == pytest.approx(8, rel=0.1)
    equal = moderate(noise.chisquare(2, 7) / 2 + 1, np.full(7, 2.0))
    assert equal.prior_degrees > 100


def test_no_variance_is_moderated_below_itself_and_few_degrees_are_borrowed() -> None:
    noise = np.random.default_rng(1)
    variances, degrees = noise.chisquare(2, 7), np.full(7, 2.0)
    found = moderate(variances, degrees)
    assert (found.variances >= variances).all()
    assert (found.variances > variances).any()
    assert (found.degrees <= 2 + PRIOR_DEGREES).all()


def test_two_variants_have_no_more_degrees_than_their_runs() -> None:
    found = moderate(np.array([1.0, 1.1]), np.array([1.0, 1.0]))
    assert found.degrees.tolist() == [2, 2]


def test_the_check_is_an_f_test_against_all_others() -> None:
    noise = np.random.default_rng(2)
    samples = [noise.normal(0, sd, size) for sd, size in ((1, 5), (1, 4), (20, 6))]
    found = moderate(
        np.array([x.var(ddof=1) for x in samples]), np.array([len(x) - 1.0 for x in samples])
    )
    others = (4 * samples[0].var(ddof=1) + 3 * samples[1].var(ddof=1)) / 7
    expected = 3 * stats.f.sf(samples[2].var(ddof=1) / others, 5, 7)
    assert found.p_larger[2] == pytest.approx(expected)
    assert found.is_larger.tolist() == [False, False, True]


def test_the_prior_is_the_variances_geometric_mean() -> None:
    noise = np.random.default_rng(3)
    variances = noise.chisquare(4, 20_000) / 4
    found = moderate(variances, np.full(20_000, 4.0))
    low = variances < 0.5  # and so not limited by their own
    prior = (6 * found.variances[low] - 4 * variances[low]) / 2
    assert prior == pytest.approx(1, rel=0.02)  # unbiased where they are equal


def test_runs_without_any_spread_are_no_error() -> None:
    assert moderate(np.zeros(3), np.ones(3)).variances.tolist() == [0, 0, 0]
    assert np.isfinite(moderate(np.array([0.0, 1.0, 2.0]), np.full(3, 2.0)).variances).all()
