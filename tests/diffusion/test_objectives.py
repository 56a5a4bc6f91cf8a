"""Every objective, on data that are exactly known: a Gaussian, whose E[x₀ | x] has a closed form.

What a perfect model of each objective says is computed from that alone.
"""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mpdit.catalogue import OBJECTIVES, SOLVERS
from mpdit.config import make_run
from mpdit.diffusion.continuous import EDM, Continuous, Flow
from mpdit.diffusion.objectives import objective_of
from mpdit.diffusion.process import Diffusion
from mpdit.diffusion.solvers import Heun
from mpdit.diffusion.target import Target
from mpdit.errors import ConfigError
from tests.helpers.tiny import tiny_config

SHAPE = (1, 2, 2)
MEAN = torch.tensor([0.5, -1.0, 0.0, 2.0], dtype=torch.float64)
ROOT = torch.tensor(
    [[0.8, 0, 0, 0], [0.5, 0.4, 0, 0], [-0.3, 0.2, 0.3, 0], [0.1, 0.0, 0.1, 0.1]],
    dtype=torch.float64,
)
COVARIANCE = ROOT @ ROOT.T
ORIGIN_AND_AXES = torch.cat((torch.zeros(1, 4), torch.eye(4))).double().view(-1, *SHAPE)
"""An affine map is known from what it does to these."""

DISCRETE = [name for name, row in OBJECTIVES.items() if not row.continuous]
CONTINUOUS = [name for name, row in OBJECTIVES.items() if row.continuous]


def of(name: str) -> Target:
    solver = "heun" if OBJECTIVES[name].continuous else "ddpm"
    config = tiny_config(train={"objective": name}, sample={"solver": solver})
    return objective_of(config, Diffusion())


def path(objective: Target, t: Tensor) -> tuple[Tensor, Tensor]:
    """The factors of x₀ and of ε in x_t, (batch, 1, 1, 1)."""
    one = torch.ones(len(t), *SHAPE, dtype=torch.float64)
    signal = objective.noised(one, t, torch.zeros_like(one))
    noise = objective.noised(torch.zeros_like(one), t, one)
    return signal[:, :1, :1, :1], noise[:, :1, :1, :1]


def denoised(objective: Target, x: Tensor, t: Tensor) -> Tensor:
    """E[x₀ | x_t] of data N(MEAN, COVARIANCE), all at one time."""
    a, s = (float(factor[0]) for factor in path(objective, t))
    gain = a * COVARIANCE @ torch.linalg.inv(a**2 * COVARIANCE + s**2 * torch.eye(4).double())
    return (MEAN + (x.flatten(1) - a * MEAN) @ gain.T).view_as(x)


def said(name: str, objective: Target, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """The prediction of a model that knows x₀ and ε, by the papers' own words."""
    a, s = path(objective, t)
    if name == "edm":  # D = c_skip x + c_out F, of data scaled to standard deviation 0.5
        x, sigma = a * x0 + s * noise, s
        skip = 0.25 / (sigma**2 + 0.25)
        out = sigma * 0.5 / (0.25 + sigma**2).sqrt()
        return (a * x0 - skip * x) / out
    return {"epsilon": noise, "v": a * noise - s * x0, "x": x0, "flow": noise - x0}[name]


def perfect(name: str, objective: Target) -> Callable[[Tensor, Tensor], Tensor]:
    """What the solvers take, from the model with the least loss on the Gaussian."""

    def model(x: Tensor, t: Tensor) -> Tensor:
        x0 = denoised(objective, x, t)
        a, s = path(objective, t)
        prediction = said(name, objective, x0, (x - a * x0) / s, t)
        return objective.prediction(torch.cat((prediction, torch.ones_like(x)), 1), x, t)

    return model


def pair() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn(4, *SHAPE, dtype=torch.float64, generator=random) for _ in "ab")  # type: ignore[return-value]


@pytest.mark.parametrize("name", [*OBJECTIVES])
def test_a_perfect_prediction_has_no_loss_but_the_variances(name):
    objective, (x0, noise) = of(name), pair()
    t = objective.spread(4)
    x_t = objective.noised(x0, t, noise)
    prediction = said(name, objective, x0, noise, t)
    terms = objective.loss(torch.cat((prediction, torch.zeros_like(x0)), 1), x0, x_t, t, noise)
    assert terms["mse"].max().item() < 1e-10
    torch.testing.assert_close(terms["loss"], terms["vlb"], rtol=0, atol=1e-6)
    assert bool(terms["vlb"].any()) == (name in DISCRETE)


@pytest.mark.parametrize("name", [*OBJECTIVES])
def test_only_the_prediction_learns_from_the_error_and_only_the_variance_from_the_bound(name):
    objective, (x0, noise) = of(name), pair()
    t = objective.spread(4)
    output = (torch.cat(pair(), 1) + 1).requires_grad_()
    terms = objective.loss(output, x0, objective.noised(x0, t, noise), t, noise)
    (of_error,) = torch.autograd.grad(terms["mse"].sum(), output, retain_graph=True)
    assert bool(of_error[:, :1].all())
    assert not of_error[:, 1:].any()
    if name in DISCRETE:
        (of_bound,) = torch.autograd.grad(terms["vlb"].sum(), output)
        assert not of_bound[:, :1].any()
        assert bool(of_bound[:, 1:].any())


def test_xs_loss_is_the_larger_of_the_errors_of_x0_and_of_the_noise():
    objective, (x0, noise) = of("x"), pair()
    t = torch.tensor([0, 100, 600, 999])
    x_t = objective.noised(x0, t, noise)
    wrong = x0 + 0.3
    terms = objective.loss(torch.cat((wrong, torch.zeros_like(x0)), 1), x0, x_t, t, noise)
    a, s = path(objective, t)
    error = torch.stack([(wrong - x0) ** 2, ((x_t - a * wrong) / s - noise) ** 2])
    expected = error.mean((2, 3, 4)).amax(0)
    torch.testing.assert_close((terms["loss"] - terms["vlb"]).double(), expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("std", [0.5, 1.0])
def test_edms_model_is_given_and_asked_for_unit_magnitude_at_every_noise_level(std):
    objective, random = EDM(std), torch.Generator().manual_seed(0)
    x0, noise = (torch.randn(64, 1, 32, 32, generator=random).double() for _ in "ab")
    t = objective.spread(64)
    x_t = objective.noised(x0 * std, t, noise)
    x, time = objective.inputs(x_t, t)
    zero = torch.zeros(64, 2, 32, 32).double()
    of_target = objective.loss(zero, x0 * std, x_t, t, noise)["mse"]
    for square in (x.square().mean((1, 2, 3)), of_target):
        torch.testing.assert_close(square, torch.ones(64).double(), rtol=0, atol=0.2)
        assert square.mean().item() == pytest.approx(1, abs=0.02)
    torch.testing.assert_close((4 * time).exp(), t)


@pytest.mark.parametrize("name", [*OBJECTIVES])
def test_times_are_drawn_from_the_distribution_of_the_paper(name):
    objective = of(name)
    t = objective.times(20_000, torch.Generator().manual_seed(0), torch.device("cpu")).double()
    if name == "edm":
        assert t.log().mean().item() == pytest.approx(-0.4, abs=0.03)
        assert t.log().std().item() == pytest.approx(1.0, abs=0.03)
    else:
        last = 1.0 if name == "flow" else 999.0
        assert 0 <= t.min().item() < t.max().item() <= last
        assert t.mean().item() == pytest.approx(last / 2, rel=0.02)
        assert t.std().item() == pytest.approx(last / 12**0.5, rel=0.02)
    spread = objective.spread(64)
    assert bool((spread.diff() > 0).all())
    assert spread.double().mean().item() == pytest.approx(t.mean().item(), rel=0.1)


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("solver", [n for n, row in SOLVERS.items() if not row.continuous])
def test_every_prediction_of_one_model_gives_the_same_samples(solver, name):
    def samples(objective: str) -> Tensor:
        random = torch.Generator().manual_seed(0)
        way = SOLVERS[solver].load()(Diffusion(), 20)
        model = perfect(objective, of(objective))
        return way.solve(
            model, ORIGIN_AND_AXES, lambda: torch.randn(5, *SHAPE, generator=random).double()
        )

    torch.testing.assert_close(samples(name), samples("epsilon"), rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", [*OBJECTIVES])
@pytest.mark.parametrize("solver", [*SOLVERS])
def test_an_objective_is_sampled_by_the_solvers_of_its_times_and_by_no_others(solver, name):
    def made() -> str:
        config = tiny_config(train={"objective": name}, sample={"solver": solver})
        return config.sample.solver

    fitting = [key for key, row in SOLVERS.items() if row.continuous == OBJECTIVES[name].continuous]
    if solver in fitting:
        assert made() == solver
        return
    with pytest.raises(ConfigError) as error:
        made()
    said = f"sample.solver {solver} cannot sample a model of train.objective {name}. Set "
    assert str(error.value) == f"{said}sample.solver to {' or '.join(fitting)}"


@pytest.mark.parametrize("name", [*OBJECTIVES])
def test_guiding_the_output_is_guiding_what_the_solver_takes(name):
    objective, (of_class, of_null) = of(name), pair()
    x, t, zero = of_class + of_null, objective.spread(4), torch.zeros_like(of_class)

    def taken(output: Tensor) -> Tensor:
        return objective.prediction(torch.cat((output, zero), 1), x, t)[:, :1]

    guided = taken(of_null + 3 * (of_class - of_null))
    expected = taken(of_null) + 3 * (taken(of_class) - taken(of_null))
    torch.testing.assert_close(guided, expected, rtol=1e-5, atol=1e-5)


def error(name: str, objective: Continuous, steps: int) -> float:
    """How far Heun's affine map of the noise is from the flow's own, relative to that.

    dx/dt moves x along the eigenvectors of the covariance, by as much as the density narrows there.
    """
    out = Heun(objective, steps).solve(perfect(name, objective), ORIGIN_AND_AXES, torch.Tensor)
    first = torch.tensor(objective.schedule(steps)[:1], dtype=torch.float64)
    a, s = (float(factor[0]) for factor in path(objective, first))
    variances, axes = torch.linalg.eigh(COVARIANCE)
    narrowed = axes @ torch.diag((variances / (a**2 * variances + s**2)).sqrt()) @ axes.T
    start = objective.start(ORIGIN_AND_AXES).flatten(1)
    expected = MEAN + (start - a * MEAN) @ narrowed
    return float((out.flatten(1) - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("name", "objective"), [("flow", Flow(0.5)), ("edm", EDM(0.5)), ("edm", EDM(1.0))]
)
def test_heun_converges_to_the_flow_at_second_order(name, objective):
    errors = [error(name, objective, steps) for steps in (50, 100, 200)]
    assert errors[-1] < 1e-3
    ratios = [coarse / fine for coarse, fine in pairwise(errors)]
    assert all(3.5 < ratio < 6 for ratio in ratios), ratios


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_single_step_goes_from_pure_noise_to_the_mean_of_the_data(name):
    objective = of(name)
    assert isinstance(objective, Continuous)
    x = torch.randn(5, *SHAPE, generator=torch.Generator().manual_seed(0)).double()
    samples = Heun(objective, 1).solve(perfect(name, objective), x, torch.Tensor).flatten(1)
    torch.testing.assert_close(samples, MEAN.expand(5, -1), rtol=0, atol=0.1)


@pytest.mark.parametrize("name", [*OBJECTIVES])
def test_the_noise_level_is_that_of_the_path(name):
    objective = of(name)
    t = objective.spread(5)
    a, s = path(objective, t)
    torch.testing.assert_close(
        objective.noise_level(t).double(), (s / a).flatten(), rtol=1e-5, atol=0
    )


def test_a_latents_denoiser_is_that_of_scaled_data():
    latents = {"name": "latents", "channels": 1, "size": 8, "classes": 10}
    config = make_run(
        {
            **tiny_config(train={"objective": "edm"}, sample={"solver": "heun"}).resolved(),
            "data": latents,
        }
    )
    objective = objective_of(config, Diffusion())
    assert isinstance(objective, EDM)
    x0, noise = pair()
    t = objective.spread(4)
    assert torch.equal(objective.noised(x0, t, noise), EDM(0.5).noised(x0 / 2, t, noise))
    assert torch.equal(objective.finish(x0), 2 * x0)
