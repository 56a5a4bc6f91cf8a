"""The solvers on data that is exactly known: a Gaussian, whose ε(x, t) has a closed form.

Every deterministic solver is then an affine map of the noise, and an ancestral step one of x: the
mean and covariance of its samples are computed from the map, without drawing any. What is left is
the error of the discretization.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mpdit.catalogue import SOLVERS
from mpdit.diffusion.process import Diffusion
from mpdit.diffusion.solvers import DDIM, DDPM, DPMSolver2M, Solver

SHAPE = (1, 2, 2)
MEAN = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
ROOT = torch.tensor(
    [[0.8, 0, 0, 0], [0.5, 0.4, 0, 0], [-0.3, 0.2, 0.3, 0], [0.1, 0.0, 0.1, 0.1]],
    dtype=torch.float64,
)
COVARIANCE = ROOT @ ROOT.T  # of condition 500: standard deviations from 0.05 to 1.1

ORIGIN_AND_AXES = torch.cat((torch.zeros(1, 4), torch.eye(4))).double().view(-1, *SHAPE)
"""An affine map is known from what it does to these."""


def gaussian(covariance: Tensor, variance: float | Tensor = 0.0) -> Callable[..., Tensor]:
    """The model whose ε is that of N(MEAN, covariance), with a fixed variance interpolation."""
    # Tweedie: ε = √(1 − ᾱ) (ᾱ C + (1 − ᾱ) I)⁻¹ (x − √ᾱ m)
    whole = Diffusion()

    def model(x: Tensor, t: Tensor) -> Tensor:
        a, s = whole.signal[t[0]].double(), whole.noise[t[0]].double()
        precision = torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(4))
        eps = (s * (x.flatten(1) - a * MEAN) @ precision).view_as(x)
        return torch.cat((eps, torch.zeros_like(x) + variance), dim=1)

    return model


def no_noise() -> Tensor:
    return torch.zeros_like(ORIGIN_AND_AXES)


def moments(kind: type[Solver], steps: int, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a deterministic solver's samples from N(0, I)."""
    out = kind(Diffusion(), steps).solve(gaussian(covariance), ORIGIN_AND_AXES, no_noise)
    mean, *axes = out.flatten(1)
    map_ = torch.stack(axes, dim=1) - mean[:, None]
    return mean, map_ @ map_.T


def ancestral_moments(
    steps: int, covariance: Tensor, variance: Callable[[Diffusion, int], float | Tensor]
) -> tuple[Tensor, Tensor]:
    """The same of DDPM: a step is x ← A x + b + Σ^½ z."""
    solver = DDPM(Diffusion(), steps)
    mean, spread = torch.zeros(4).double(), torch.eye(4).double()
    for i in reversed(range(steps)):
        t = solver.chain.timestep_map[i].expand(5)
        output = gaussian(covariance, variance(solver.chain, i))(ORIGIN_AND_AXES, t)
        quiet = solver.step(output, ORIGIN_AND_AXES, i, no_noise).flatten(1)
        loud = solver.step(output, ORIGIN_AND_AXES, i, lambda: no_noise() + 1).flatten(1)
        map_ = (quiet[1:] - quiet[0]).T
        mean = map_ @ mean + quiet[0]
        spread = map_ @ spread @ map_.T + torch.diag((loud - quiet)[0] ** 2)
    return mean, spread


def error(found: tuple[Tensor, Tensor], covariance: Tensor = COVARIANCE) -> float:
    """The larger of the relative errors of mean and covariance."""
    mean, spread = found
    of_mean = (mean - MEAN).norm() / MEAN.norm()
    return float(max(of_mean, (spread - covariance).norm() / covariance.norm()))


@pytest.mark.parametrize(
    ("kind", "steps", "tolerance"),
    # DDIM is of first order, DPM-Solver++(2M) of second: ten times the steps, a tenth and less
    # than a twentieth of the error, down to the 0.6 % of the data that are left in "pure noise"
    [(DDIM, 50, 0.1), (DDIM, 500, 0.01), (DPMSolver2M, 20, 0.05), (DPMSolver2M, 200, 0.002)],
)
def test_a_solver_finds_a_gaussians_mean_and_covariance(kind, steps, tolerance):
    assert error(moments(kind, steps, COVARIANCE)) < tolerance


def test_dpm_solver_at_20_steps_beats_ddim_at_20_and_at_50():
    fast = error(moments(DPMSolver2M, 20, COVARIANCE))
    assert fast < error(moments(DDIM, 20, COVARIANCE)) / 4
    assert fast < error(moments(DDIM, 50, COVARIANCE))


@pytest.mark.parametrize("steps", [5, 50, 250, 1000])
def test_ddpm_with_the_true_variance_is_exact_at_any_respacing(steps):
    # pixels are independent: the true posterior's variance is one number a pixel, and lies between
    # β̃ (data without spread) and β (data of unit variance), where the interpolation can say it
    spread = torch.tensor([0.01, 0.2, 0.6, 1.0], dtype=torch.float64)

    def variance(chain: Diffusion, i: int) -> Tensor:
        bar, beta = chain.alphas_bar[i].double(), chain.betas[i].double()
        of_x0 = spread * (1 - bar) / (bar * spread + 1 - bar)  # of x_0, given x_i
        true = chain.log_posterior[i].double().exp() + chain.mean_of_x0[i].double() ** 2 * of_x0
        share = (true.log() - chain.log_posterior[i]) / (beta.log() - chain.log_posterior[i])
        return (2 * share - 1).view(SHAPE)

    found = ancestral_moments(steps, torch.diag(spread), variance)
    # what is left: the last step adds no noise (1 − ᾱ_0 = 1e-4), "pure noise" holds √ᾱ = 0.6 % of
    # the data, and the schedule is in float32
    assert error(found, torch.diag(spread)) < 1e-3


def test_ddpm_with_a_fixed_variance_needs_its_250_steps():
    for_paper = error(ancestral_moments(250, COVARIANCE, lambda *_: 1.0))
    assert for_paper < 0.02
    assert error(ancestral_moments(20, COVARIANCE, lambda *_: 1.0)) > 4 * for_paper


@pytest.mark.parametrize("steps", [1, 2, 20, 250, 1000])
def test_log_snr_spacing_takes_so_many_timesteps_from_first_to_last(steps):
    chain = DPMSolver2M(Diffusion(), steps).chain
    kept = chain.timestep_map
    assert kept.dtype == torch.int64
    assert chain.steps == steps
    assert bool((kept.diff() > 0).all())
    assert steps == 1 or kept[0] == 0
    assert kept[-1] == 999


@pytest.mark.parametrize("kind", [row.load() for row in SOLVERS.values() if not row.continuous])
def test_a_single_step_goes_from_pure_noise_to_the_mean_of_the_data(kind):
    def model(x: Tensor, t: Tensor) -> Tensor:  # a variance beyond β, as a network may say it
        assert t.tolist() == [999] * len(x)
        return torch.cat((gaussian(COVARIANCE)(x, t)[:, :1], torch.full_like(x, 1.5)), dim=1)

    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    samples = kind(Diffusion(), 1).solve(model, x, lambda: torch.randn_like(x)).flatten(1)
    torch.testing.assert_close(samples, MEAN.expand(5, -1), rtol=0, atol=0.1)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("steps", [6, 20, 100])
def test_dpm_solver_is_that_of_diffusers(steps):
    """On the same timesteps, along the whole way, to its float32."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")
    theirs = diffusers.DPMSolverMultistepScheduler(
        num_train_timesteps=1000,
        beta_start=1e-4,
        beta_end=0.02,
        solver_order=2,
        algorithm_type="dpmsolver++",
        final_sigmas_type="zero",
        lower_order_final=False,
    )
    ours = DPMSolver2M(Diffusion(), steps)
    theirs.set_timesteps(timesteps=ours.chain.timestep_map.flip(0).tolist())
    model = gaussian(COVARIANCE)
    start = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    x = start
    for t in theirs.timesteps:
        x = theirs.step(model(x, t.expand(3))[:, :1], t, x).prev_sample
    expected = ours.solve(model, start, lambda: torch.zeros_like(start))
    torch.testing.assert_close(x.double(), expected, rtol=0, atol=1e-4)
