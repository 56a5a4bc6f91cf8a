"""A sample is a function of its set's description and its index, not of the batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mpdit.catalogue import SOLVERS
from mpdit.catalogue.respacing import even_timesteps
from mpdit.config import RunConfig
from mpdit.diffusion.process import Diffusion
from mpdit.model import DiT
from mpdit.sampling.drawing import Drawing, OneAhead, draw
from mpdit.sampling.sampleset import to_uint8
from mpdit.training.trainer import build_model
from tests.helpers.tiny import tiny_config
from tests.helpers.trained import talking_model

CPU = torch.device("cpu")
LEVEL = 1 / 127.5
"""One of 256 grey levels."""


@pytest.mark.parametrize("respacing", ["dit", "nearest"])
def test_a_set_is_drawn_at_the_timesteps_that_its_respacing_says(
    respacing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def guided(_: DiT, x: torch.Tensor, t: torch.Tensor, *__: object) -> torch.Tensor:
        asked.insert(0, int(t[0]))
        return torch.cat((x, torch.zeros_like(x)), dim=1)

    monkeypatch.setattr(DiT, "guided", guided)
    config = tiny_config(sample={"steps": 27, "respacing": respacing})
    draw(build_model(config, CPU), Drawing.of_run(config), range(2), CPU)
    assert tuple(asked) == even_timesteps(27, respacing)


def solved(solver: str, **sample: object) -> RunConfig:
    """A run that is sampled so, with an objective that the solver is for."""
    objective = "edm" if SOLVERS[solver].continuous else "epsilon"
    return tiny_config(
        train={"objective": objective}, sample={"solver": solver, "steps": 8, **sample}
    )


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_guidance_is_applied_within_its_interval_of_noise_levels(
    solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    own = DiT.guided

    def guided(model: DiT, *given: Any) -> torch.Tensor:
        asked.append(given[-1])
        return own(model, *given)

    def samples(guidance: float, interval: list[float] | None) -> torch.Tensor:
        asked.clear()
        config = solved(solver, guidance=guidance, guidance_interval=interval)
        return draw(talking_model(config), Drawing.of_run(config), range(2), CPU)

    monkeypatch.setattr(DiT, "guided", guided)
    assert torch.equal(samples(3.0, [0.0, 1e9]), samples(3.0, None))
    assert torch.equal(samples(3.0, [1e8, 1e9]), samples(1.0, None))
    samples(3.0, [1.0, 1e9])  # high noise levels come first
    assert asked == sorted(asked, reverse=True)
    assert set(asked) == {3.0, 1.0}


def test_an_interval_includes_its_upper_end_and_not_its_lower_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[float] = []

    def guided(_: DiT, x: torch.Tensor, *given: Any) -> torch.Tensor:
        asked.append(given[-1])
        return torch.cat((x, torch.zeros_like(x)), dim=1)

    monkeypatch.setattr(DiT, "guided", guided)
    process, t = Diffusion(), even_timesteps(8, "dit")[4]
    level = (process.noise[t] / process.signal[t]).item()
    for interval, expected in (([0.0, level], 5), ([level, 1e9], 3)):
        asked.clear()
        config = solved("ddim", guidance=3.0, guidance_interval=interval)
        draw(build_model(config, CPU), Drawing.of_run(config), range(2), CPU)
        assert (asked.count(3.0), len(asked)) == (expected, 8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_sample_is_the_same_image_whatever_it_is_batched_with(solver: str) -> None:
    config = solved(solver)
    drawing, model = Drawing.of_run(config), talking_model(config)
    together = draw(model, drawing, range(6), CPU)
    alone = torch.cat([draw(model, drawing, range(i, i + 1), CPU) for i in range(6)])
    # one batch's sums round otherwise than another's, far below one of 256 levels
    torch.testing.assert_close(alone, together, rtol=0, atol=LEVEL / 50)


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_noise_of_a_sample_is_the_same_bits_whatever_it_is_batched_with(solver: str) -> None:
    config = solved(solver)
    drawing = Drawing.of_run(config)
    silent = build_model(config, CPU)  # its output is zero: nothing rounds by the batch
    together = draw(silent, drawing, range(6), CPU)
    alone = [draw(silent, drawing, range(i, i + 1), CPU) for i in range(6)]
    assert torch.equal(torch.cat(alone), together)
    assert len(together.flatten(1).unique(dim=0)) == 6


def test_a_set_is_called_by_what_differs_from_the_runs_own() -> None:
    config = tiny_config(evaluate={"repeats": 3})
    own = Drawing.of_run(config)
    assert own.name == "samples"
    assert Drawing.of_run(config, 2).name == "repeat2"
    assert replace(own, guidance=2.0, ema_std=0.07).name == "samples_guidance2_ema0.07"
    other = replace(own, solver="dpm++", steps=20, precision="bfloat16", classes=(3, 7))
    assert other.name == "samples_dpmpp_steps20_bfloat16_classes3-7"
    assert replace(Drawing.of_run(config, 1), snapshot=12).name == "repeat1_at12"


def test_a_record_says_how_the_set_was_drawn() -> None:
    own = Drawing.of_run(tiny_config(seed=3))
    expected = {
        "sampler": "ddpm",
        "steps": 4,
        "guidance": 1.5,
        "ema_std": 0.05,
        "seed": 3,
        "precision": "float32",
        "to_uint8": "round",
        "snapshot": 24,
        "labels": "data",
    }
    assert own.record() == expected
    assert replace(own, classes=(1,)).record() == {**expected, "classes": (1,)}


def test_repeats_have_sampling_seeds_of_their_own() -> None:
    seeds = {
        Drawing.of_run(tiny_config(seed=seed), repeat).seed
        for seed in range(5)
        for repeat in range(5)
    }
    assert len(seeds) == 25
    assert Drawing.of_run(tiny_config(seed=4)).seed == 4


def test_guidance_in_bfloat16_is_of_float32_numbers() -> None:
    model = talking_model(tiny_config())
    random = torch.Generator().manual_seed(0)
    x, t, y = (
        torch.randn(2, 1, 8, 8, generator=random),
        torch.tensor([3, 900]),
        torch.tensor([1, 2]),
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        own, null = model(x, t, y), model(x, t, torch.full_like(y, model.null_class))
        guided = model.guided(x, t, y, 4.0)
    assert own.dtype == torch.bfloat16
    expected = null[:, :1].float() + 4 * (own[:, :1].float() - null[:, :1].float())
    torch.testing.assert_close(guided[:, :1], expected, rtol=1e-5, atol=1e-6)


def test_bytes_are_rounded_or_truncated_as_the_official_code_does() -> None:
    x = torch.linspace(-1.2, 1.2, 5000).view(5, 1, 10, 100)
    official = (255 * (x.clamp(-1, 1) + 1) / 2).byte().permute(0, 2, 3, 1).numpy()
    truncated = to_uint8(x.numpy(), "truncate")
    assert np.abs(truncated.astype(int) - official).max() == 0
    exact = np.clip((x.numpy() + 1) * 127.5, 0, 255).transpose(0, 2, 3, 1)
    assert np.abs(to_uint8(x.numpy(), "round") - exact).max() <= 0.5001
    assert (exact - truncated).mean() == pytest.approx(0.5 * (1 - 2 / 12), abs=0.02)


def test_noise_drawn_ahead_is_what_would_be_drawn_when_it_is_asked_for() -> None:
    def noise() -> Callable[[], torch.Tensor]:
        random = torch.Generator().manual_seed(1)
        return lambda: torch.randn(3, generator=random)

    plain = noise()
    with OneAhead(noise(), CPU) as ahead:
        for _ in range(5):
            assert torch.equal(ahead(), plain())
