"""Checkpoints are written by a thread: training waits for the copy, and no state is lost."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mpdit.config import read_run
from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training import checkpoint, trainer
from mpdit.training.statewriter import StateWriter
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")
BY_TIME: dict[str, Any] = {"checkpoint_every": None, "snapshot_every": 24}


def started(folder: Path, **train: Any) -> trainer.Trainer:
    run = RunDir(folder)
    run.write_config(tiny_config(train=train))
    return trainer.Trainer(run.config(), Session(run), CPU, World())


def test_what_is_written_is_the_state_of_its_moment() -> None:
    writer, go, written = StateWriter(), threading.Event(), []

    def write(state: dict[str, Any]) -> None:
        go.wait(10)
        written.append(state["nested"]["w"][0].tolist())

    weight = torch.ones(2)
    writer.submit({"nested": {"w": [weight]}}, write)
    weight.zero_()
    go.set()
    writer.drain()
    assert written == [[1, 1]]


def test_after_a_failed_write_nothing_more_is_written_and_training_is_told() -> None:
    writer, written = StateWriter(), []

    def fail(_: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    go = threading.Event()
    writer.submit({}, lambda _: go.wait(10) and fail({}))
    writer.submit({"step": 2}, written.append)  # a checkpoint after a snapshot that is lost
    go.set()
    with pytest.raises(OSError, match="No space left"):
        writer.drain()
    with pytest.raises(OSError, match="No space left"):
        writer.submit({"step": 3}, written.append)
    assert written == []


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write of step 4 waits until step 20 has been taken."""
    training = started(tmp_path, checkpoint_every=4, snapshot_every=24, steps=24, log_every=1)
    save, passed = checkpoint.save, []

    def wait_and_save(folder: Path, step: int, *rest: Any, **options: Any) -> None:
        end = time.monotonic() + 10
        while not passed and training.step < 8 and time.monotonic() < end:
            time.sleep(0.001)
        passed.append((step, training.step))
        save(folder, step, *rest, **options)

    monkeypatch.setattr(checkpoint, "save", wait_and_save)
    training.fit()
    assert passed[0][0] == 4
    assert passed[0][1] >= 8
    assert [step for step, _ in passed] == [4, 8, 12, 16, 20, 24]
    assert checkpoint.load_newest(tmp_path / "checkpoints", CPU, pytest.fail) is not None


def test_checkpoints_come_by_time_and_in_older_configs_by_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps_saved(folder: Path, **train: Any) -> list[int]:
        steps: list[int] = []
        monkeypatch.setattr(checkpoint, "save", lambda _, step, *__, **___: steps.append(step))
        started(folder, **train).fit()
        return steps

    assert steps_saved(tmp_path / "ten minutes", **BY_TIME) == [24]
    assert steps_saved(tmp_path / "at once", **BY_TIME, checkpoint_minutes=1e-9) == [*range(1, 25)]
    assert steps_saved(tmp_path / "older", checkpoint_every=10) == [10, 20, 24]
    older = tiny_config(train={"checkpoint_every": 1000}).resolved()
    del older["train"]["checkpoint_minutes"]
    assert read_run(older).train.checkpoint_every == 1000
    assert read_run(older).id == tiny_config(train={"checkpoint_every": None}).id


def test_the_speed_counts_the_time_between_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = started(tmp_path, checkpoint_every=6, log_every=12, probe_every=24)
    monkeypatch.setattr(training, "_save", lambda: time.sleep(0.3))
    training.fit()
    first, second = read_rows(tmp_path / "metrics.jsonl")
    assert first["seconds"] >= 0.3  # after step 6
    assert second["seconds"] - first["seconds"] >= 0.6  # after steps 12 and 18
    assert second["images_per_s"] <= 12 * 8 / 0.6
