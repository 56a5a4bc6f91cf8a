"""Rates by kind of parameter, weight decay, and Muon."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.disk.rundir import RunDir
from mpdit.flops import muon_flops
from mpdit.model.layers import MPEmbedding, MPLinear
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training.optimizer import MuonAndAdam, parameter_groups
from mpdit.training.trainer import Trainer
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")
NORMALIZED = {"weight_normalization": True, "mp_embedding": True}


def trainer(folder: Path, model: dict[str, object], **train: object) -> Trainer:
    config = tiny_config(model=model, train={"warmup_steps": 0, **train})
    run = RunDir(folder)
    run.write_config(config)
    started = Trainer(config, Session(run), CPU, World())
    started.step = 1
    for parameter in started.parameters:  # what starts at zero decays as well
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(parameter.numel()))
    return started


@pytest.mark.parametrize("model", [{}, NORMALIZED], ids=["plain", "normalized"])
def test_every_kind_of_parameter_has_its_own_rate(model: dict[str, object], tmp_path: Path) -> None:
    rates = {"learning_rate": 1e-4, "mp_learning_rate": 1e-3, "gain_learning_rate": 2e-3}
    own = {"matrix_learning_rate": 3e-3, "embedding_learning_rate": 4e-3}
    built = trainer(tmp_path, model, **rates, **own).model
    groups = parameter_groups(built, tiny_config(model=model, train={**rates, **own}).train)
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert {*rate} == {id(parameter) for parameter in built.parameters()}
    for module in built.modules():
        if isinstance(module, MPLinear):
            assert rate[id(module.weight)] == 3e-3
            assert module.gain is None or rate[id(module.gain)] == 2e-3
        elif isinstance(module, MPEmbedding):
            assert rate[id(module.weight)] == 4e-3


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_weight_decay_takes_its_share_of_linear_maps_and_of_nothing_else(
    optimizer: str, tmp_path: Path
) -> None:
    stepped = []
    for decay in (0.0, 0.5):
        started = trainer(
            tmp_path / str(decay), NORMALIZED, optimizer=optimizer, weight_decay=decay
        )
        before = [parameter.clone() for parameter in started.parameters]
        started.train_step()
        stepped.append(started.parameters)
    maps = {id(m.weight) for m in started.model.modules() if isinstance(m, MPLinear)}
    for start, plain, decayed in zip(before, *stepped, strict=True):
        share = 1e-3 * 0.5 if id(decayed) in maps else 0
        torch.testing.assert_close(decayed, plain - share * start, rtol=0, atol=1e-6)


def test_muon_steps_each_matrix_by_itself_as_torchs_own_does(tmp_path: Path) -> None:
    model = dict.fromkeys(PAPERS_FLAGS, True) | {"mlp": "swiglu"}
    started = trainer(tmp_path, model, optimizer="muon")
    optimizer, block = started.optimizer, started.model.blocks[0]
    assert isinstance(optimizer, MuonAndAdam)
    started.gradients(1)
    width = started.config.model.width
    hidden = len(block.mlp.first.weight) // 2
    pieces = {
        **{f"qkv {i}": (block.attention.qkv.weight, i, width) for i in range(3)},
        **{f"modulation {i}": (block.modulation.linear.weight, i, width) for i in range(6)},
        **{f"swiglu {i}": (block.mlp.first.weight, i, hidden) for i in range(2)},
    }
    expected = {}
    for name, (weight, i, height) in pieces.items():
        rows = slice(i * height, (i + 1) * height)
        alone = torch.nn.Parameter(weight.detach()[rows].clone())
        assert weight.grad is not None
        alone.grad = weight.grad[rows].clone()
        torch.optim.Muon([alone], lr=1e-3, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
        expected[name] = weight, rows, alone, weight.detach()[rows].clone()
    optimizer.step()
    for weight, rows, alone, before in expected.values():
        assert torch.equal(weight[rows], alone)
        step = (alone - before) / (1e-3 * 0.2 * max(alone.shape) ** 0.5)
        values = torch.linalg.svdvals(step.detach())
        assert 0.3 < values.median() < 1.3  # Newton and Schulz's are between 0.7 and 1.2
    stepped = sum(piece.numel() for piece, _, _ in optimizer.pieces)
    assert stepped == sum(p.numel() for p in block.parameters() if p.ndim == 2)


@pytest.mark.parametrize(
    "model",
    [
        {"depth": 2},
        {"preset": "final", "depth": 2},
        {"shared_modulation": True, "depth": 2, "conditioning": "rotation_scale"},
        {"mlp": "swiglu"},
        {"conditioning": "none"},
    ],
    ids=str,
)
def test_muons_flops_are_the_flop_counters(model: dict[str, object], tmp_path: Path) -> None:
    started = trainer(tmp_path, model, optimizer="muon")
    started.gradients(1)
    assert isinstance(started.optimizer, MuonAndAdam)
    with FlopCounterMode(display=False) as counter:
        started.optimizer.step()
    assert muon_flops(started.config.model) == counter.get_total_flops()


def test_muon_leaves_embeddings_gains_and_the_ends_of_the_model_to_adam(tmp_path: Path) -> None:
    started = trainer(tmp_path, NORMALIZED, optimizer="muon")
    assert isinstance(started.optimizer, MuonAndAdam)
    of_adam = {id(p) for group in started.optimizer.adam.param_groups for p in group["params"]}
    blocks = {id(p) for p in started.model.blocks.parameters() if p.ndim == 2}
    assert of_adam == {id(p) for p in started.parameters} - blocks
