"""The trainer's own step is the official code's: twelve steps, in lock step, to 1e-9 in float64.

All ``*.npz`` with training steps are checked, of tests/golden/ or of the folder that MPDIT_GOLDEN
names: weights, batches, timesteps, noise and dropped labels go in; losses, gradient norms, learning
rates and the final weights come out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mpdit.training.trainer
from mpdit.config import RunConfig, make_run
from mpdit.diffusion.process import Diffusion
from mpdit.disk.rundir import RunDir
from mpdit.official.tensors import from_official
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training.trainer import Trainer
from tests.helpers.golden import EXACT, MODELS, TRAINED, Golden, close
from tests.helpers.third_generation import ThirdGeneration


@pytest.fixture(params=TRAINED, ids=lambda path: path.stem)
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def recipe(golden: Golden) -> dict[str, object]:
    """The official arguments as options of ours; what is not said here is our default."""
    meta = golden.meta
    rate = meta["lr"] if golden.kind == "flags" else meta["lr_other"]
    return {
        "steps": meta["steps"],
        "warmup_steps": meta["warmup_steps"],
        "constant_steps": meta["constant_steps"],
        "batch_size": meta["batch"],
        "learning_rate": rate,
        "adam_betas": meta["betas"],
        "clip_norm": meta["clip_norm"],
        "probe_every": 1000,
    }


def run_config(golden: Golden, train: dict[str, object]) -> RunConfig:
    data = golden.data
    shape = {"channels": data.channels, "size": data.size, "classes": data.classes}
    return make_run(
        {
            "model": golden.config.model_dump(),
            "data": {"name": "latents", **shape},
            "train": train,
        }
    )


class NoImages:
    """In the place of the data, of which the stored steps need none."""

    def __init__(self, _config: RunConfig, _device: torch.device) -> None: ...


class LockStep(Trainer):
    """Our trainer on the stored batches."""

    golden: Golden

    def draw(self, step: int):
        parts = (self.golden[f"step{step}/{name}"] for name in ("x0", "t", "noise", "y"))
        return tuple(parts)


def stepped(
    golden: Golden, train: dict[str, object], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Trainer, torch.Tensor]:
    """Our trainer after the stored steps, and of each loss, mse, vlb, gradient norm and rate."""
    monkeypatch.setattr(mpdit.training.trainer, "Batches", NoImages)
    monkeypatch.setattr(mpdit.training.trainer.Probe, "of_run", lambda *_: None)
    config, run = run_config(golden, train), RunDir(folder / "run")
    run.write_config(config)
    trainer = LockStep(config, Session(run), torch.device("cpu"), World())
    trainer.golden = golden
    golden.load_into(trainer.model.double())
    rows = []
    for step in range(1, config.train.steps + 1):
        trainer.step = step
        trainer.train_step()
        measured = trainer.meters.means(step)
        rate = trainer.optimizer.param_groups[0]["lr"]
        rows.append([*(measured[name] for name in ("loss", "mse", "vlb", "grad_norm")), rate])
        trainer.meters.sums.zero_()
        trainer.meters.summed = 0
    return trainer, torch.tensor(rows)


def test_there_are_training_steps() -> None:
    assert TRAINED


def test_every_step_is_the_official_one(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, rows = stepped(golden, recipe(golden), tmp_path, monkeypatch)
    for name, ours, theirs in zip(golden.meta["rows"], rows.T, golden["rows"].T, strict=True):
        assert close(ours, theirs, EXACT), name
    final = golden.parameters("after/")
    for name, parameter in trainer.model.named_parameters():
        assert close(parameter.detach(), final[name], EXACT), name


FINAL = [path for path in MODELS if Golden(path).kind == "final"]
FINALS_RECIPE = {
    "steps": 12,
    "warmup_steps": 2,
    "constant_steps": 6,
    "batch_size": 8,
    "learning_rate": 1e-2,
    "adam_betas": [0.9, 0.99],
    "clip_norm": 0.1,
    "probe_every": 1000,
}
"""Of branch final's trainer, with the stored steps' short schedule."""


@pytest.mark.parametrize("path", FINAL, ids=lambda path: path.stem)
def test_the_third_generation_written_out_is_the_official_one(path: Path) -> None:
    golden = Golden(path)
    plain = ThirdGeneration(golden.arguments, golden.under("param/"), golden.under("buffer/"))
    assert close(plain(*golden.inputs()), golden["out_eval"], EXACT)
    plain.force()
    for name, stored in golden.under("param_after_forward/").items():
        assert close(plain.weights[name], stored, EXACT), name
    for weight in plain.weights.values():
        weight.requires_grad_()
    output = plain(*golden.inputs())
    assert close(output, golden["out_train"], EXACT)
    (output * golden["loss_weight"]).sum().backward()
    for name, gradient in golden.under("grad/").items():
        assert close(plain.weights[name].grad, gradient, EXACT), name


@pytest.mark.parametrize("path", FINAL, ids=lambda path: path.stem)
def test_every_step_of_the_third_generation_is_that_of_its_formulas(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The official code's steps are not stored; its model, gradients and recipe are known."""
    golden, random = Golden(path), torch.Generator().manual_seed(0)
    shape = (8, golden.data.channels, golden.data.size, golden.data.size)
    for step in range(1, 13):
        drawn = {
            "x0": torch.randn(shape, generator=random).numpy(),
            "noise": torch.randn(shape, generator=random).numpy(),
            "t": torch.randint(0, 1000, (8,), generator=random).numpy(),
            "y": torch.randint(0, 11, (8,), generator=random).numpy(),
        }
        golden.arrays |= {f"step{step}/{name}": value for name, value in drawn.items()}
    plain = ThirdGeneration(golden.arguments, golden.under("param/"), golden.under("buffer/"))
    plain.weights = {
        name: weight.clone().requires_grad_() for name, weight in plain.weights.items()
    }
    adam = torch.optim.Adam(plain.weights.values(), lr=0.0, betas=(0.9, 0.99))
    diffusion, expected = Diffusion(), []
    for step in range(1, 13):
        x0, t, noise, y = (golden[f"step{step}/{name}"] for name in ("x0", "t", "noise", "y"))
        rate = 1e-2 * min(1, step / 2) * min(1, math.sqrt(6 / max(1, step - 1)))
        plain.force()
        x_t = diffusion.q_sample(x0, t, noise)
        terms = diffusion.loss(plain(x_t, t, y), x0, x_t, t, noise)
        adam.zero_grad()
        terms["loss"].mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.weights.values(), 0.1)
        adam.param_groups[0]["lr"] = rate
        adam.step()
        losses = (terms[name].mean().item() for name in ("loss", "mse", "vlb"))
        expected.append([*losses, norm.item(), rate])
    trainer, rows = stepped(golden, FINALS_RECIPE, tmp_path, monkeypatch)
    torch.testing.assert_close(rows, torch.tensor(expected), rtol=EXACT, atol=0)
    final = from_official({n: w.detach() for n, w in plain.weights.items()}, golden.config, "final")
    for name, parameter in trainer.model.named_parameters():
        assert close(parameter.detach(), final[name], EXACT), name


def test_version_01_s_recipe_is_another(golden: Golden) -> None:
    """Without the later fields: gains at learning_rate, and the decay a step early."""
    tree = run_config(golden, recipe(golden)).resolved()
    for key in ("gain_learning_rate", "decay_offset"):
        del tree["train"][key]
    before, now = make_run(tree, defaults=1), make_run(tree)
    assert (before.train.decay_offset, now.train.decay_offset) == (0, 1)
    assert before.train.gain_learning_rate == before.train.learning_rate
    assert before.id != now.id
