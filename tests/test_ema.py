"""The averages are EDM2's: held against sums taken by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpdit.ema import PowerEMA, beta, gamma_of, posthoc_weights

STEPS = 400


def random_walk() -> np.ndarray:
    """Weights after steps 1 … STEPS."""
    return np.random.default_rng(0).normal(size=STEPS).cumsum()


def brute_force(walk: np.ndarray, std: float, end: int) -> float:
    """The average after step ``end``, from the update's definition unrolled."""
    gamma = gamma_of(std)
    share = [
        (1 - beta(t, gamma)) * np.prod([beta(s, gamma) for s in range(t + 1, end + 1)])
        for t in range(1, end + 1)
    ]
    assert sum(share) == pytest.approx(1)
    return float(np.dot(share, walk[:end]))


def averaged(walk: np.ndarray, std: float) -> list[float]:
    """The running average after each step."""
    weight = torch.zeros(1, dtype=torch.float64)
    ema, values = PowerEMA([weight], [std]), []
    for step, value in enumerate(walk, start=1):
        weight.fill_(value)
        ema.update(step)
        values.append(ema.averages[std][0].item())
    return values


@given(st.floats(0.005, 0.28))
def test_gamma_gives_the_profile_its_width(std):
    gamma = gamma_of(std)
    assert (gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5 == pytest.approx(std)


def test_the_average_is_the_sum_by_hand():
    walk = random_walk()
    for std in (0.05, 0.10):
        values = averaged(walk, std)
        for end in (1, 2, 57, STEPS):
            assert values[end - 1] == pytest.approx(brute_force(walk, std, end), rel=1e-10)


def test_the_average_lags_behind_and_is_not_the_raw_weight():
    # The official code's inverted update stays at the newest weight.
    value = averaged(np.arange(1.0, STEPS + 1), 0.10)[-1]
    gamma = gamma_of(0.10)
    assert value / STEPS == pytest.approx((gamma + 1) / (gamma + 2), abs=0.01)


def test_another_width_is_reconstructed_from_snapshots():
    walk = random_walk()
    running = {std: averaged(walk, std) for std in (0.05, 0.10)}
    taken = range(20, STEPS + 1, 20)
    steps, stds = zip(*[(step, std) for std in running for step in taken], strict=True)
    stored = np.array([running[std][step - 1] for step, std in zip(steps, stds, strict=True)])
    wanted = [(STEPS, 0.05), (STEPS, 0.07), (STEPS, 0.12), (200, 0.10)]
    out_steps, out_stds = zip(*wanted, strict=True)
    weights = posthoc_weights(steps, stds, out_steps, out_stds)
    assert weights.sum(axis=0) == pytest.approx(np.ones(len(wanted)))
    expected = [brute_force(walk, std, end) for end, std in wanted]
    assert stored @ weights == pytest.approx(np.array(expected), abs=0.02 * walk.std())


def test_state_goes_on_with_the_same_bits():
    def parameters():
        return [torch.full((2, 3), 1.0), torch.zeros(4)]

    weights = parameters()
    ema = PowerEMA(weights, (0.05, 0.10))
    weights[0].fill_(2.0)
    ema.update(5)
    again = PowerEMA(parameters(), (0.05, 0.10))
    again.load_state_dict(ema.state_dict())
    for std, average in ema.averages.items():
        assert all(torch.equal(a, b) for a, b in zip(average, again.averages[std], strict=True))
    with pytest.raises(KeyError):
        PowerEMA(parameters(), (0.07,)).load_state_dict(ema.state_dict())
