"""The trainer's own step is the official code's: twelve steps, in lock step, to 1e-9 in float64.

All ``*.npz`` with training steps are checked, of tests/golden/ or of the folder that MPDIT_GOLDEN
names: weights, batches, timesteps, noise and dropped labels go in; losses, gradient norms, learning
rates and the final weights come out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mpdit.training.trainer
from mpdit.config import RunConfig, make_run
from mpdit.disk.rundir import RunDir
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training.trainer import Trainer
from tests.helpers.golden import EXACT, TRAINED, Golden, close


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


def run_config(golden: Golden) -> RunConfig:
    data = golden.data
    shape = {"channels": data.channels, "size": data.size, "classes": data.classes}
    return make_run(
        {
            "model": golden.config.model_dump(),
            "data": {"name": "latents", **shape},
            "train": recipe(golden),
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


def test_there_are_training_steps() -> None:
    assert TRAINED


def test_every_step_is_the_official_one(
    golden: Golden, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mpdit.training.trainer, "Batches", NoImages)
    monkeypatch.setattr(mpdit.training.trainer.Probe, "of_run", lambda *_: None)
    config = run_config(golden)
    run = RunDir(tmp_path / "run")
    run.write_config(config)
    trainer = LockStep(config, Session(run), torch.device("cpu"), World())
    trainer.golden = golden
    golden.load_into(trainer.model.double())
    rows = []
    for step in range(1, golden.meta["steps"] + 1):
        trainer.step = step
        trainer.train_step()
        measured = trainer.meters.means(step)
        rate = trainer.optimizer.param_groups[0]["lr"]
        rows.append([*(measured[name] for name in ("loss", "mse", "vlb", "grad_norm")), rate])
        trainer.meters.sums.zero_()
        trainer.meters.summed = 0
    for name, ours, theirs in zip(
        golden.meta["rows"], torch.tensor(rows).T, golden["rows"].T, strict=True
    ):
        assert close(ours, theirs, EXACT), name
    final = golden.parameters("after/")
    for name, parameter in trainer.model.named_parameters():
        assert close(parameter.detach(), final[name], EXACT), name


def test_version_01_s_recipe_is_another(golden: Golden) -> None:
    """Without the later fields: gains at learning_rate, and the decay a step early."""
    tree = run_config(golden).resolved()
    for key in ("gain_learning_rate", "decay_offset"):
        del tree["train"][key]
    before, now = make_run(tree, defaults=1), make_run(tree)
    assert (before.train.decay_offset, now.train.decay_offset) == (0, 1)
    assert before.train.gain_learning_rate == before.train.learning_rate
    assert before.id != now.id
