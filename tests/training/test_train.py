"""The training step is the recipe's, and an interruption after any step leaves no trace."""

import math
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import RunConfig
from mpdit.diffusion.process import Diffusion
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.ema.power import gamma_of
from mpdit.errors import ConfigError
from mpdit.runtime.distributed import World
from mpdit.runtime.randomness import generator
from mpdit.runtime.session import Interrupted, Session
from mpdit.training.batches import Batches, microbatches
from mpdit.training.meters import NonFiniteLossError
from mpdit.training.optimizer import parameter_groups
from mpdit.training.trainer import (
    Trainer,
    build_model,
    learning_rate_factor,
    snapshot_file,
)
from tests.helpers import interrupted
from tests.helpers.tiny import make, tiny_config

CPU = torch.device("cpu")
ALL = dict.fromkeys(PAPERS_FLAGS, True)


def trainer(run: RunDir, config: RunConfig) -> Trainer:
    run.write_config(config)
    return Trainer(config, Session(run), CPU, World())


@pytest.mark.parametrize(
    "train",
    [
        {"precision": "bfloat16"},
        {"gradient_checkpointing": True, "micro_batch_size": 3, "objective": "x"},
        {"objective": "edm", "micro_batch_size": 3, "optimizer": "muon"},
        {"optimizer": "muon", "weight_decay": 0.1, "matrix_learning_rate": 1e-2},
    ],
    ids=lambda train: "+".join(map(str, train.values())),
)
def test_a_stop_after_every_step_changes_no_bit(tmp_path: Path, train: dict[str, object]) -> None:
    config = tiny_config(
        model={
            **ALL,
            "time_embedding": "mp_fourier",
            "learned_uncertainty": train.get("objective") == "edm",
        },
        train={"steps": 6, **train},
        sample={"solver": "heun" if train.get("objective") == "edm" else "ddpm"},
    )
    whole, broken = RunDir(tmp_path / "whole"), RunDir(tmp_path / "broken")
    trainer(whole, config).fit()
    for _ in range(6):
        started = trainer(broken, config)
        started.session.stop_signal = signal.SIGTERM
        with pytest.raises(Interrupted, match="SIGTERM"):
            started.fit()
    assert started.step == 6
    for std in config.train.ema_stds:
        files = [snapshot_file(run.ema, std, 6) for run in (whole, broken)]
        before, after = map(load_file, files)
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_broken_gradient_leaves_only_states_from_before(tmp_path: Path) -> None:
    """The loss of the step that breaks the weights is still a number."""
    train = {"steps": 12, "checkpoint_every": 4, "snapshot_every": 4, "log_every": 100}
    run = RunDir(tmp_path)
    started = trainer(run, tiny_config(train=train))
    started.model.blocks[0].attention.qkv.weight.register_hook(
        lambda gradient: gradient * math.nan if started.step == 8 else gradient
    )
    with pytest.raises(NonFiniteLossError, match=r"grad_norm is nan at step 8; .*step_00000004.pt"):
        started.fit()
    assert [file.name for file in run.checkpoints.glob("*.pt")] == ["step_00000004.pt"]
    assert len(list(run.ema.iterdir())) == 2


@pytest.mark.parametrize(
    "precision",
    [
        pytest.param("float32", marks=pytest.mark.long),
        pytest.param("bfloat16", marks=pytest.mark.slow),
    ],
)
def test_a_compiled_run_goes_on_to_the_same_bits(tmp_path: Path, precision: str) -> None:
    train = {"compile": True, "precision": precision, "steps": 2000, "snapshot_every": 2000}
    # with the variance that such a short training learns, ddpm would overflow
    options = {"model": ALL, "train": train, "sample": {"solver": "dpm++"}}
    whole, broken = (make(tmp_path / name, **options) for name in ("whole", "broken"))
    interrupted.finish(whole)
    process = interrupted.start(broken)
    while len(read_rows(broken.path / "metrics.jsonl")) < 100:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR2)
    process.communicate()
    interrupted.finish(broken)
    assert "resuming from step" in broken.log.read_text()
    assert interrupted.science_of(broken) == interrupted.science_of(whole)


def test_without_a_compiler_it_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"compile: true needs a C\+\+ compiler"):
        trainer(RunDir(tmp_path / "run"), tiny_config(train={"compile": True}))


def test_gradient_checkpointing_changes_no_bit(tmp_path: Path) -> None:
    weights = []
    for recompute in (False, True):
        run = RunDir(tmp_path / str(recompute))
        config = tiny_config(model=ALL, train={"gradient_checkpointing": recompute})
        trainer(run, config).fit()
        weights.append(load_file(snapshot_file(run.ema, 0.05, 24)))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_compiled_microbatches_are_of_one_size_where_that_divides_the_batch() -> None:
    assert microbatches(256, 100, even=False) == 3  # 86, 85 and 85 images
    assert microbatches(256, 100, even=True) == 4
    assert microbatches(256, 128, even=True) == microbatches(256, 128, even=False) == 2
    assert microbatches(257, 100, even=True) == 3  # a prime
    assert microbatches(85, None, even=True) == 1
    assert microbatches(3, 1, even=True) == 3


def test_the_rate_warms_up_stays_and_falls_with_the_root_of_the_step() -> None:
    # 400,000 steps: linear to 2,666, constant to 40,000, then 1/sqrt
    train = tiny_config(train={"steps": 400_000, "snapshot_every": None, "probe_every": None}).train
    factors = {
        1: 1 / 2666,
        1333: 0.5,
        2666: 1.0,
        40_000: 1.0,
        160_000: 0.5,
        400_000: math.sqrt(0.1),
    }
    for step, factor in factors.items():
        assert learning_rate_factor(step, train) == pytest.approx(factor, rel=1e-3)
    assert train.snapshot_every == 1600


def test_magnitude_preserving_weights_learn_at_their_own_rate(tmp_path: Path) -> None:
    rates = {"learning_rate": 1e-4, "mp_learning_rate": 1e-2, "gain_learning_rate": 1e-4}
    config = tiny_config(model={"preset": "mods"}, train=rates)
    model = trainer(RunDir(tmp_path), config).model
    others, preserving = parameter_groups(model, config.train)
    assert (others["lr"], preserving["lr"]) == (1e-4, 1e-2)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all(names[id(p)].endswith("gain") for p in others["params"])
    assert all(names[id(p)].endswith("weight") for p in preserving["params"])
    assert len(others["params"]) + len(preserving["params"]) == len(names)


def test_clipping_bounds_the_step_s_gradient_and_not_its_measure(tmp_path: Path) -> None:
    runs = {}
    for clip in (None, 1e-4):
        run = RunDir(tmp_path / str(clip))
        started = trainer(run, tiny_config(train={"clip_norm": clip, "steps": 1}))
        norms: list[torch.Tensor] = []
        step = started.optimizer.step

        def measure_and_step(p=started.parameters, n=norms, step=step) -> None:
            n.append(torch.stack([q.grad.norm() for q in p if q.grad is not None]).norm())
            step()

        started.optimizer.step = measure_and_step
        started.fit()
        runs[clip] = float(norms[0]), read_rows(run.path / "metrics.jsonl")[0]["grad_norm"]
    assert runs[1e-4][0] == pytest.approx(1e-4, rel=1e-2)
    assert runs[1e-4][1] == runs[None][1] == pytest.approx(runs[None][0])


def test_training_is_the_recipe_step_by_step(tmp_path: Path) -> None:
    """Forced normalization, the loss, clipping, Adam and the averages, written out plainly."""
    rates = {"learning_rate": 1e-3, "mp_learning_rate": 1e-2, "gain_learning_rate": 1e-3}
    course = {"warmup_steps": 2, "constant_steps": 3, "steps": 5, "snapshot_every": 5}
    recipe = {**rates, **course, "clip_norm": 0.5}
    config = tiny_config(model=ALL, train=recipe)
    started = trainer(RunDir(tmp_path), config)
    model, batches, diffusion = build_model(config, CPU), Batches(config, CPU), Diffusion()
    named = dict(model.named_parameters())
    first, second, average = ({n: torch.zeros_like(p) for n, p in named.items()} for _ in "mvw")
    for step in range(1, 6):
        for name, parameter in named.items():
            if not name.endswith("gain"):
                rows = parameter.data.norm(dim=-1, keepdim=True) + 1e-4
                parameter.data = parameter.data * math.sqrt(parameter.shape[-1]) / rows
        random = generator(config.seed, "train", step)
        t = torch.randint(0, 1000, (8,), generator=random)
        noise = torch.randn((8, 1, 8, 8), generator=random)
        dropped = torch.rand(8, generator=random) < 0.1
        x0, y = batches.batch(step)
        x_t = diffusion.q_sample(x0, t, noise)
        output = model(x_t, t, torch.where(dropped, 10, y))
        model.zero_grad()
        diffusion.loss(output, x0, x_t, t, noise)["loss"].mean().backward()
        gradients = {name: parameter.grad for name, parameter in named.items()}
        norm = torch.cat([g.flatten() for g in gradients.values()]).norm()
        factor = min(1, step / 2) * min(1, math.sqrt(3 / max(1, step - 1)))
        for name, parameter in named.items():
            g = gradients[name] * min(1, 0.5 / norm)
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.99 * second[name] + 0.01 * g**2
            direction = first[name] / (1 - 0.9**step)
            direction /= (second[name] / (1 - 0.99**step)).sqrt() + 1e-8
            rate = 1e-3 if name.endswith("gain") else 1e-2
            parameter.data = parameter.data - rate * factor * direction
            kept = (1 - 1 / step) ** (gamma_of(0.05) + 1)
            average[name] = kept * average[name] + (1 - kept) * parameter.data
    started.fit()
    stored = load_file(snapshot_file(started.run.ema, 0.05, 5))
    for name, parameter in started.model.named_parameters():
        torch.testing.assert_close(parameter.data, named[name].data, rtol=1e-3, atol=1e-4, msg=name)
        torch.testing.assert_close(stored[name], average[name], rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("objective", ["v", "flow", "edm"])
def test_processes_share_the_batch_that_one_would_draw(objective: str, tmp_path: Path) -> None:
    solver = "ddim" if objective == "v" else "heun"
    config = tiny_config(train={"objective": objective}, sample={"solver": solver})
    started = trainer(RunDir(tmp_path), config)
    whole, shares = started.draw(3), []
    for rank in range(2):
        started.world = World(rank=rank, size=2)
        shares.append(started.draw(3))
    for drawn, *parts in zip(whole, *shares, strict=True):
        assert torch.equal(drawn, torch.cat(parts))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_step_computes_its_products_in_the_precision_asked_for(
    tmp_path: Path, precision: str
) -> None:
    started = trainer(RunDir(tmp_path), tiny_config(model=ALL, train={"precision": precision}))
    seen: list[torch.dtype] = []
    qkv = started.model.blocks[0].attention.qkv
    qkv.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    assert started.gradients(1).dtype == torch.float32
    assert seen == [getattr(torch, precision)]


def test_labels_are_dropped_as_often_as_asked(tmp_path: Path) -> None:
    started = trainer(
        RunDir(tmp_path), tiny_config(train={"batch_size": 500, "label_dropout": 0.1})
    )
    seen: list[torch.Tensor] = []
    started.model.label.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    for step in range(1, 21):
        started.gradients(step)
    dropped = torch.cat(seen) == started.model.null_class
    assert dropped.float().mean() == pytest.approx(0.1, abs=0.01)  # three standard errors
