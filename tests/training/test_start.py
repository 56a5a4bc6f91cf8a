"""A run that begins with the weights of another."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mpdit.config import RunConfig, read_run
from mpdit.disk.rundir import RunDir
from mpdit.ema.power import snapshot_file
from mpdit.errors import ConfigError
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training.trainer import Trainer
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")


def trainer(folder: Path, config: RunConfig) -> Trainer:
    run = RunDir(folder)
    run.write_config(config)
    return Trainer(run.config(), Session(run), CPU, World())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    first = trainer(tmp_path_factory.mktemp("runs") / "first", tiny_config())
    first.fit()
    return first.run


def begun(folder: Path, start: Path) -> Trainer:
    second = trainer(folder, tiny_config(train={"start": str(start)}, seed=1))
    second._resume()
    return second


def test_training_begins_with_the_averaged_or_the_raw_weights(
    finished: RunDir, tmp_path: Path
) -> None:
    (raw,) = finished.checkpoints.glob("*24.pt")
    averaged = snapshot_file(finished.ema, 0.1, 24)
    expected = {
        finished.path: load_file(snapshot_file(finished.ema, 0.05, 24)),
        averaged: load_file(averaged),
        raw: torch.load(raw, weights_only=True)["model"],
    }
    for number, (start, state) in enumerate(expected.items()):
        second = begun(tmp_path / str(number), start)
        assert second.step == 0
        for name, tensor in second.model.state_dict().items():
            assert torch.equal(tensor, state[name]), name
    weights = [state["final.linear.weight"] for state in expected.values()]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_resume_does_not_begin_again(finished: RunDir, tmp_path: Path) -> None:
    config = tiny_config(train={"start": str(finished.path), "steps": 2, "snapshot_every": 1})
    whole = trainer(tmp_path / "run", config)
    whole.fit()
    again = trainer(tmp_path / "run", config)
    again.fit()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name


def test_the_content_is_part_of_the_identity_and_the_place_is_not(
    finished: RunDir, tmp_path: Path
) -> None:
    copy = tmp_path / "weights.safetensors"
    shutil.copy(snapshot_file(finished.ema, 0.05, 24), copy)
    other = snapshot_file(finished.ema, 0.05, 12)
    first, moved, another = (
        tiny_config(train={"start": str(start)}) for start in (finished.path, copy, other)
    )
    assert first.id == moved.id
    assert len({first.id, another.id, tiny_config().id}) == 3
    copy.unlink()
    assert read_run(moved.resolved()) == moved  # no file is needed to read a config


def test_a_start_that_is_not_there_is_one_message_of_the_plan(tmp_path: Path) -> None:
    for start, said in ((tmp_path / "none.pt", "cannot read"), (tmp_path, "has no EMA snapshots")):
        with pytest.raises(ConfigError, match=rf"^train\.start: .*{said}"):
            tiny_config(train={"start": str(start)})


def test_a_file_that_changed_or_is_of_another_model_is_refused(
    finished: RunDir, tmp_path: Path
) -> None:
    copy = tmp_path / "weights.safetensors"
    shutil.copy(snapshot_file(finished.ema, 0.05, 24), copy)
    wide = tiny_config(train={"start": str(copy)}, model={"width": 32})
    with pytest.raises(ConfigError, match=r"train\.start: .*of another model: .* \[.*32.*\]"):
        trainer(tmp_path / "wide", wide)._resume()
    config = tiny_config(train={"start": str(copy)})
    copy.write_bytes(snapshot_file(finished.ema, 0.1, 24).read_bytes())
    with pytest.raises(ConfigError, match=r"train\.start: .*changed since the run was made"):
        trainer(tmp_path / "changed", config)._resume()
    copy.unlink()
    with pytest.raises(ConfigError, match=r"train\.start: cannot read"):
        trainer(tmp_path / "missing", config)._resume()


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("hello")
        with pytest.raises(ConfigError, match="neither an EMA snapshot nor a checkpoint"):
            begun(tmp_path / f"run {name}", tmp_path / name)
    contents = [1, 2], torch.zeros(3), {"model": 3}, {"model": {"a": "b"}}, {"a": torch.zeros(3)}
    for number, content in enumerate(contents):
        torch.save(content, file := tmp_path / f"{number}.pt")
        with pytest.raises(ConfigError, match="it holds no tensors under the key model"):
            begun(tmp_path / f"run {number}", file)
