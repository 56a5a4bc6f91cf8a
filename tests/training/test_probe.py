"""The probe measures what it says, and training does not know of it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.model import DiT
from mpdit.runtime.distributed import World
from mpdit.runtime.session import open_session
from mpdit.training import probe
from mpdit.training.probe import StepProbe, rms, weights_of_blocks
from mpdit.training.trainer import Trainer
from tests.helpers.tiny import tiny_config

MODELS = [
    {},
    dict.fromkeys(PAPERS_FLAGS, True),
    {"preset": "mods", "conditioning": "rotation_scale"},
]


def trained(folder: Path, **changes: object) -> RunDir:
    run = RunDir(folder)
    run.write_config(tiny_config(**changes))
    with open_session(run) as session:
        Trainer(run.config(), session, torch.device("cpu"), World()).fit()
    return run


def final_weights(run: RunDir) -> dict[str, torch.Tensor]:
    return load_file(run.ema / "std0.050_step00000024.safetensors")


@pytest.mark.parametrize("model", MODELS, ids=["none", "all", "mods"])
def test_training_is_the_same_bits_however_often_it_is_probed(tmp_path, model):
    seldom, often = (
        trained(tmp_path / str(every), model=model, train={"probe_every": every})
        for every in (24, 1)
    )
    before, after = final_weights(seldom), final_weights(often)
    assert all(torch.equal(before[name], after[name]) for name in before)
    rows = {row["step"]: row for row in read_rows(often.path / "metrics.jsonl")}
    for row in read_rows(seldom.path / "metrics.jsonl"):
        assert rows[row["step"]]["grad_norm"] == row["grad_norm"]


def test_every_site_has_a_row_a_probe_and_a_number_a_block(tmp_path):
    run = trained(tmp_path / "run", model={"depth": 3}, train={"probe_every": 12})
    rows = read_rows(run.path / "magnitudes.jsonl")
    sites = {step: {row["site"] for row in rows if row["step"] == step} for step in (0, 12, 24)}
    learning = {"gradient", "update"}
    assert sites[0] == sites[12] - learning == sites[24] - learning
    assert "weight" in sites[0]
    assert learning <= sites[12]
    assert all(len(r["blocks"]) == 3 for r in rows if r["site"] != "conditioning")
    assert len(rows) == len({(row["step"], row["site"]) for row in rows})


def test_a_steps_numbers_are_those_of_a_step_by_hand():
    config = tiny_config(model={"depth": 2})
    model = DiT(config.model, config.data.spec, generator=torch.Generator().manual_seed(0)).double()
    blocks = weights_of_blocks(model)
    for number, block in enumerate(blocks, start=1):
        for weight in block:
            weight.data.fill_(2.0)
            weight.grad = torch.full_like(weight, float(number))
    step = StepProbe(model)
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    measured = step.after()
    assert measured["gradient"] == pytest.approx([1.0, 2.0])
    assert measured["update"] == pytest.approx([0.05, 0.1])
    assert [rms(block) for block in blocks] == pytest.approx([1.9, 1.8])


def test_a_map_that_all_blocks_share_is_one_of_each_blocks_matrices():
    config = tiny_config(model={"depth": 2, "shared_modulation": True})
    model = DiT(config.model, config.data.spec)
    shared = model.modulation.weight
    of_blocks = [{id(weight) for weight in block} for block in weights_of_blocks(model)]
    assert set.intersection(*of_blocks) == {id(shared)}
    for parameter in model.parameters():
        parameter.data.fill_(2.0)
        parameter.grad = torch.zeros_like(parameter)
    shared.grad.fill_(1.0)
    step = StepProbe(model)
    torch.optim.SGD([shared], lr=0.1).step()
    share = shared.numel() / sum(weight.numel() for weight in weights_of_blocks(model)[0])
    measured = step.after()
    assert measured["gradient"] == pytest.approx([share**0.5] * 2)
    assert measured["update"] == pytest.approx([0.05 * share**0.5] * 2)


def test_weights_are_copied_only_in_the_steps_that_are_probed(tmp_path, monkeypatch):
    steps: list[int] = []
    made = probe.StepProbe.__init__
    monkeypatch.setattr(
        probe.StepProbe, "__init__", lambda self, model: (steps.append(1), made(self, model))[1]
    )
    trained(tmp_path / "run", train={"probe_every": 10})
    assert len(steps) == 3  # 10, 20, 24


def test_a_run_that_recomputes_its_blocks_ends_with_the_same_bits(tmp_path):
    kept, recomputed = (
        final_weights(trained(tmp_path / str(on), train={"gradient_checkpointing": on}))
        for on in (False, True)
    )
    assert all(torch.equal(kept[name], recomputed[name]) for name in kept)
