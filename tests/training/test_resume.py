"""What a resume finds missing, damaged or changed, it makes again, reports or refuses."""

import json
import os
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from mpdit.config import RunConfig
from mpdit.disk.files import keep_rows, read_rows
from mpdit.disk.rundir import RunDir
from mpdit.ema.power import snapshot_file
from mpdit.errors import ConfigError
from mpdit.runtime.distributed import World
from mpdit.runtime.provenance import record_start
from mpdit.runtime.session import Interrupted, Session
from mpdit.training import checkpoint
from mpdit.training.rows import missing_rows
from mpdit.training.trainer import Trainer
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")


def trainer(run: RunDir, config: RunConfig | None = None) -> Trainer:
    if config is not None:
        run.write_config(config)
    return Trainer(run.config(), Session(run), CPU, World())


def stop_at(run: RunDir, step: int, config: RunConfig | None = None) -> None:
    started = trainer(run, config)
    step_on = started.train_step

    def step_and_stop() -> None:
        step_on()
        if started.step == step:
            started.session.stop_signal = signal.SIGTERM

    started.train_step = step_and_stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        started.fit()


@pytest.fixture
def stopped(tmp_path: Path) -> RunDir:
    """A run with its state of step 12 of 24, which has snapshots."""
    run = RunDir(tmp_path / "run")
    run.write_config(tiny_config())
    record_start(run, CPU, processes=1)
    stop_at(run, 12)
    return run


def cut(file: Path, rows: int) -> None:
    keep_rows(file, read_rows(file)[:rows])


def lost_rows(run: RunDir) -> list[str]:
    starts = json.loads((run.path / "provenance.json").read_text())["starts"]
    lines: list[str] = starts[-1].get("missing_rows", [])
    return lines


@pytest.mark.parametrize("how", ["cut", "emptied", "deleted", "a damaged line"])
def test_rows_that_were_there_at_the_checkpoint_and_are_not_any_more_are_named(
    stopped: RunDir, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = stopped.path / "metrics.jsonl"
    assert [row["step"] for row in read_rows(file)] == [5, 10]
    if how == "cut":
        cut(file, 1)
    elif how == "emptied":
        file.write_bytes(b"")
    elif how == "deleted":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes().replace(b'"step": 10', b'"step": \xff0'))
    trainer(stopped).fit()
    count, where = (2, "steps 5 to 10") if how in ("emptied", "deleted") else (1, "step 10")
    said = f"metrics.jsonl: {count} of its 2 rows up to the checkpoint are missing, of {where}"
    assert said in caplog.messages
    assert lost_rows(stopped) == [said]
    stop = read_rows(file)[-1]["step"]
    assert stop == 24


def test_a_probe_that_is_missing_is_named_too(
    stopped: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    file = stopped.path / "magnitudes.jsonl"
    cut(file, 1)
    trainer(stopped).fit()
    assert "magnitudes.jsonl: " in caplog.text
    assert "are missing, of steps 0 to 8" in caplog.text


def test_a_resume_with_all_its_rows_says_nothing(
    stopped: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    trainer(stopped).fit()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
    assert lost_rows(stopped) == []


def test_rows_are_counted_as_often_as_they_were_written() -> None:
    assert missing_rows("m", [0, 8, 8], [0, 0, 8, 8]) == (
        "m: 1 of its 4 rows up to the checkpoint are missing, of step 0"
    )
    assert missing_rows("m", [0, 8, 16], [0, 8]) is None


def test_a_damaged_or_missing_snapshot_of_the_checkpoints_step_is_made_again(
    stopped: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    damaged, missing = (snapshot_file(stopped.ema, std, 12) for std in (0.05, 0.10))
    before = damaged.read_bytes(), missing.read_bytes()
    damaged.write_bytes(before[0][:-40] + bytes(40))
    missing.unlink()
    stop_at(stopped, 13)
    assert (damaged.read_bytes(), missing.read_bytes()) == before
    assert f"{damaged} is damaged" in caplog.text
    assert caplog.text.count("it is made again from the checkpoint") == 2


def test_a_third_checkpoint_goes_at_the_next_start(stopped: RunDir) -> None:
    for step in (1, 2):
        for kind in ("pt", "json"):
            (stopped.checkpoints / f"step_{step:08d}.{kind}").touch()
    (stopped.checkpoints / "step_00000099.pt").touch()  # damaged, and of a later step
    checkpoint.sweep(stopped.checkpoints, 12)
    names = sorted(file.name for file in stopped.checkpoints.iterdir())
    assert names == [
        "step_00000010.json", "step_00000010.pt", "step_00000012.json", "step_00000012.pt",
        "step_00000099.pt",
    ]  # fmt: skip


class Command:
    """What a hostile checkpoint would do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getpid, ()


def test_a_checkpoint_that_holds_code_is_passed_over_without_torchs_advice(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, {"step": 1})
    checkpoint.save(tmp_path, 2, {"step": 2, "code": Command()})
    warnings: list[str] = []
    state = checkpoint.load_newest(tmp_path, CPU, warnings.append)
    assert state is not None
    assert state["step"] == 1
    assert len(warnings) == 1
    assert "step_00000002.pt holds more than tensors and plain values" in warnings[0]
    assert "weights_only" not in warnings[0]
    assert pickle.UnpicklingError.__name__ not in warnings[0]


def test_other_betas_are_refused_also_where_a_checkpoint_says_no_config(stopped: RunDir) -> None:
    changed = tiny_config(train={"adam_betas": [0.8, 0.99]})
    with pytest.raises(ConfigError, match=r"adam_betas=\[0.9, 0.99\], config.yaml says \[0.8, 0."):
        trainer(stopped, changed).fit()


def test_a_checkpoint_says_which_run_it_is_of(stopped: RunDir) -> None:
    found = checkpoint.newest_mark(stopped.checkpoints)
    assert found is not None
    file, mark = found
    assert file.name == "step_00000012.pt"
    assert (mark["run"], mark["science"]["seed"]) == (stopped.config().id, 0)
