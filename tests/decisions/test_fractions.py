"""Fractions of crossed grids, against the textbook's (Box, Hunter and Hunter)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mpdit.decisions.fractions import fraction, least


def crossed(*levels: int) -> np.ndarray:
    return np.array(list(itertools.product(*map(range, levels))))


def test_seven_factors_in_eight_runs_are_the_orthogonal_array() -> None:
    codes = crossed(*[2] * 7)
    assert least(codes, "main", seeds=2) == 8
    found = fraction(codes, "main", 8)
    design = 2 * codes[list(found.rows)] - 1
    assert np.array_equal(design.T @ design, 8 * np.eye(7, dtype=int))
    # the variance of an effect is in inverse proportion to the runs
    assert list(found.ratios.values()) == pytest.approx([(128 / 8) ** 0.5] * 7)


def test_the_half_of_three_factors_confounds_each_with_the_interaction_of_the_others() -> None:
    found = fraction(crossed(2, 2, 2), "main", 4)
    assert found.aliases == {
        (0,): [((1, 2), pytest.approx(1))],
        (1,): [((0, 2), pytest.approx(1))],
        (2,): [((0, 1), pytest.approx(1))],
    }


def test_the_half_of_five_factors_estimates_all_their_interactions() -> None:
    codes = crossed(*[2] * 5)
    assert least(codes, "two-way", seeds=2) == 16
    found = fraction(codes, "two-way", 16)
    assert len(found.ratios) == 5 + 10
    assert max(found.ratios.values()) == pytest.approx(2**0.5)
    assert not found.aliases


def test_one_seed_leaves_degrees_for_the_noise() -> None:
    codes = crossed(*[2] * 7)
    assert least(codes, "main", seeds=1) == 8 + 3


def test_exclusions_are_respected_and_what_they_prevent_is_said() -> None:
    codes = crossed(2, 2, 3)
    codes = codes[~((codes[:, 0] == 1) & (codes[:, 1] == 0))]
    found = fraction(codes, "two-way", least(codes, "two-way", seeds=2))
    assert found.missing == ((0, 1),)
    assert set(found.ratios) == {(0,), (1,), (2,), (0, 2), (1, 2)}
    assert len(set(found.rows)) == len(found.rows) <= found.cells == 9


def test_it_is_the_same_every_time_and_better_than_any_random_subset() -> None:
    codes = crossed(2, 2, 2, 2, 3)
    found = fraction(codes, "main", 10)
    assert fraction(codes, "main", 10) == found

    def spread(rows: list[int]) -> float:
        dummies = [np.eye(n)[codes[rows, i]][:, 1:] for i, n in enumerate((2, 2, 2, 2, 3))]
        design = np.hstack([np.ones((10, 1)), *dummies])
        return float(np.linalg.det(design.T @ design))

    noise = np.random.default_rng(0)
    others = [list(noise.choice(len(codes), 10, replace=False)) for _ in range(300)]
    assert spread(list(found.rows)) >= max(map(spread, others))
