"""Against Jennison and Turnbull's table of Pocock's constants."""

import numpy as np
import pytest
from scipy.stats import norm

from mpdit.decisions.looks import nominal_level


@pytest.mark.parametrize(
    ("looks", "bound"), [(1, 1.960), (2, 2.178), (3, 2.289), (4, 2.361), (5, 2.413), (10, 2.555)]
)
def test_the_levels_are_the_textbooks(looks: int, bound: float) -> None:
    # Group Sequential Methods with Applications to Clinical Trials, 2000, table 2.1, α = 0.05
    level = nominal_level(tuple(range(1, looks + 1)), 0.05)
    assert norm.isf(level / 2) == pytest.approx(bound, abs=1e-3)


def test_uneven_looks_keep_the_level() -> None:
    looks = (3, 5, 8, 12)
    bound = norm.isf(nominal_level(looks, 0.05) / 2)
    sums = np.random.default_rng(0).normal(size=(100_000, 12)).cumsum(axis=1)
    crossed = [np.abs(sums[:, n - 1]) / n**0.5 > bound for n in looks]
    assert np.mean(np.any(crossed, axis=0)) == pytest.approx(0.05, abs=0.002)
