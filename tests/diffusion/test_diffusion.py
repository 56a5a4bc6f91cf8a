"""The diffusion process agrees with what its equations imply."""

import math

import pytest
import torch
from scipy import stats

from mpdit.catalogue.respacing import even_timesteps, respacing_matters
from mpdit.diffusion.process import Diffusion, discretized_log_likelihood, normal_kl


def images(seed: int, channels: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, channels, 3, 3, dtype=torch.float64, generator=generator)


T = torch.tensor([0, 1, 500, 999])


def test_the_kl_is_torchs():
    mean_a, log_a, mean_b, log_b = (images(seed) for seed in range(4))
    a, b = (
        torch.distributions.Normal(mean, (log / 2).exp())
        for mean, log in ((mean_a, log_a), (mean_b, log_b))
    )
    expected = torch.distributions.kl_divergence(a, b)
    torch.testing.assert_close(normal_kl((mean_a - mean_b).square(), log_a, log_b), expected)


def test_the_discretized_likelihood_is_the_normal_mass_of_the_bin():
    levels = torch.linspace(-1, 1, 256, dtype=torch.float64).view(1, 1, 16, 16)
    mean, log_std = torch.full_like(levels, 0.3), torch.full_like(levels, math.log(0.5))
    ours = discretized_log_likelihood(levels, mean, log_std).exp()
    assert ours.sum().item() == pytest.approx(1, abs=1e-9)
    normal = stats.norm(0.3, 0.5)
    inner = levels.flatten()[1:-1].numpy()
    mass = normal.cdf(inner + 1 / 255) - normal.cdf(inner - 1 / 255)
    # the cumulative distribution is a tanh approximation
    assert ours.flatten()[1:-1].numpy() == pytest.approx(mass, rel=0.01)


def test_a_perfect_prediction_has_no_mse_and_finds_x0():
    diffusion, x0, noise = Diffusion(), images(0), images(1)
    x_t = diffusion.q_sample(x0, T, noise)
    output = torch.cat((noise, torch.zeros_like(noise)), dim=1)
    assert not diffusion.loss(output, x0, x_t, T, noise)["mse"].any()
    pred_xstart = diffusion.p_mean_variance(output, x_t, T).pred_xstart
    torch.testing.assert_close(pred_xstart, x0, rtol=0, atol=1e-4)  # √ᾱ is 0.006 at the end


def test_epsilon_learns_from_the_squared_error_alone():
    diffusion, x0, noise = Diffusion(), images(0), images(1)
    output = images(2, channels=4).requires_grad_()
    x_t = diffusion.q_sample(x0, T, noise)
    terms = diffusion.loss(output, x0, x_t, T, noise)
    (gradient,) = torch.autograd.grad(terms["vlb"].sum(), output)
    assert not gradient[:, :2].any()
    assert gradient[:, 2:].any()


def test_a_chain_visits_its_steps_at_the_original_noise_levels():
    whole = Diffusion()
    for steps in (1, 2, 7, 50, 250, 999, 1000):
        chain = whole.respace(steps)
        assert chain.steps == steps == len(chain.timestep_map.unique())
        torch.testing.assert_close(chain.alphas_bar, whole.alphas_bar[chain.timestep_map])
    assert torch.equal(whole.respace(1000).timestep_map, whole.timestep_map)


def timesteps_of_dit(count: int) -> list[int]:
    """One section of guided-diffusion's respacing: a fractional stride, added up."""
    place, stride, taken = 0.0, 999 / (count - 1) if count > 1 else 1, []
    while len(taken) < count:
        taken.append(round(place))
        place = place + stride
    return taken


def test_evenly_spaced_timesteps_are_dits_for_every_step_count():
    whole, another = Diffusion(), []
    for steps in range(1, 1001):
        expected = timesteps_of_dit(steps)
        assert whole.respace(steps).timestep_map.tolist() == expected
        nearest = even_timesteps(steps, "nearest")
        assert respacing_matters(steps) == (steps > 1 and list(nearest) != expected)
        assert max(abs(a - b) for a, b in zip(nearest, expected, strict=True)) <= 1 or steps == 1
        another += [steps] if respacing_matters(steps) else []
    assert (len(another), another[2:4]) == (283, [27, 35])
    assert not {10, 15, 20, 50, 100, 128, 200, 250, 256, 500, 1000} & set(another)


def test_a_process_keeps_the_timesteps_of_version_01_where_it_is_told_to():
    old = Diffusion(respacing="nearest").respace(27).timestep_map.tolist()
    assert old == [round(i * 999 / 26) for i in range(27)]
    assert old != timesteps_of_dit(27)


def test_the_last_step_adds_no_noise():
    chain, output, x, noise = Diffusion().respace(10), images(0, 4), images(1), images(2)
    i = torch.tensor([0, 0, 1, 9])
    quiet = chain.step(output, x, i, torch.zeros_like(noise))
    differs = (chain.step(output, x, i, noise) != quiet).flatten(1).any(1)
    assert differs.tolist() == [False, False, True, True]


@pytest.mark.parametrize("ancestral", [True, False])
def test_sampling_with_the_true_score_finds_the_data(ancestral):
    # Data N(2, 0.5²): ε(x, t) is known, and so is where the chain must end.
    chain = Diffusion().respace(250)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 1, 1, 1, generator=generator)
    for step in reversed(range(chain.steps)):
        i = torch.full((len(x),), step)
        bar = chain.alphas_bar[step]
        eps = (1 - bar).sqrt() * (x - bar.sqrt() * 2) / (1 - bar + bar * 0.25)
        output = torch.cat((eps, torch.ones_like(eps)), dim=1)
        noise = torch.randn(x.shape, generator=generator)
        x = chain.step(output, x, i, noise) if ancestral else chain.ddim_step(output, x, i)
    assert x.mean().item() == pytest.approx(2, abs=0.03)
    assert x.std().item() == pytest.approx(0.5, abs=0.03)
