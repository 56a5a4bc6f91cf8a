"""A damaged small file costs what it held, is named, and stops nothing."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mpdit.disk.files import append_row, read_rows, warn_once
from mpdit.disk.rundir import RunDir, RunState
from mpdit.ema.power import write_snapshot
from mpdit.errors import ConfigError
from mpdit.evaluation import features
from mpdit.runtime.provenance import record_start
from mpdit.runtime.session import Session, open_session

CPU = torch.device("cpu")
DAMAGES = {
    "zeros": b"\0" * 64,
    "an odd number of zeros": b"\0" * 63,
    "no UTF-8": b'{"token": 1, "host": "\x80"}',
    "null": b"null",
    "a list": b"[1, 2]",
    "half": b'{"step": 1',
    "words for numbers": b'{"step": "many", "token": "mine", "starts": 5}',
}


@pytest.fixture(params=DAMAGES.values(), ids=DAMAGES.keys())
def damage(request: pytest.FixtureRequest) -> bytes:
    warn_once.cache_clear()
    content: bytes = request.param
    return content


def test_a_damaged_state_counts_as_absent_and_is_named_once(
    tiny_run: RunDir, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tiny_run.path / "state.json"
    file.write_bytes(damage)
    assert [tiny_run.state() for _ in range(3)] == [None] * 3
    assert caplog.messages == [f"{file} is damaged; it counts as absent"]
    tiny_run.write_state(RunState(step=3))
    assert tiny_run.state() == RunState(step=3)


def test_what_a_newer_version_says_of_a_run_is_passed_over(tiny_run: RunDir) -> None:
    (tiny_run.path / "state.json").write_text('{"step": 3, "mood": "good", "loss": NaN}')
    state = tiny_run.state()
    assert state is not None
    assert state.step == 3


def test_damaged_rows_are_left_out_and_their_lines_are_named(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "metrics.jsonl"
    append_row(file, {"step": 1})
    line = b"[1]" if damage.startswith(b'{"step": "') else damage  # that one is a row
    file.write_bytes(file.read_bytes() + line + b"\n" + b'{"step": 2}\n')
    assert read_rows(file) == [{"step": 1}, {"step": 2}]
    assert caplog.messages == [f"{file}: line 2 is damaged and counted as absent"]


def test_a_damaged_lock_is_nobodys_and_that_is_said(
    tiny_run: RunDir, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    lock = tiny_run.path / "lock"
    lock.write_bytes(damage)
    assert not tiny_run.is_leased()
    with tiny_run.lease() as held:
        held.check()
        assert json.loads(lock.read_bytes())["token"] == held.token
    assert caplog.messages == [f"{lock} is damaged; it counts as nobody's"]


def test_a_newer_versions_lock_still_says_whose_it_is(
    tiny_run: RunDir, caplog: pytest.LogCaptureFixture
) -> None:
    with tiny_run.lease():
        pass
    lock = tiny_run.path / "lock"
    lock.write_text(json.dumps({**json.loads(lock.read_bytes()), "colour": "blue"}))
    with tiny_run.lease() as held:
        held.check()
    assert caplog.messages == []


def test_a_damaged_provenance_is_one_message(tiny_run: RunDir, damage: bytes) -> None:
    (tiny_run.path / "provenance.json").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"provenance\.json is damaged"):
        record_start(tiny_run, CPU, processes=1)


def test_what_killed_processes_left_goes_at_the_next_start(tiny_run: RunDir) -> None:
    tiny_run.samples.mkdir()
    left = [
        tiny_run.path / ".lock.0123456789abcdef",
        tiny_run.path / ".state.json.0123456789abcdef.tmp",
        tiny_run.samples / ".samples.digits-w0.safetensors.a1b2_c3d",  # as version 0.1 named it
        tiny_run.samples / ".samples.digits-w0.safetensors.0123456789abcdef.tmp",
    ]
    kept = [tiny_run.path / ".hidden", tiny_run.samples / "samples.digits-w0.safetensors"]
    for file in (*left, *kept):
        file.touch()
    with tiny_run.lease():
        assert not any(file.exists() for file in left)
        assert all(file.exists() for file in kept)


WRITERS: dict[str, Callable[[Path], object]] = {
    "snapshot": lambda file: write_snapshot(file, {"w": torch.zeros(2)}),
    "features": lambda file: features.keep(file, {}, {"a": np.zeros(2)}),
    "rows": lambda file: append_row(file, {"step": 1}),
}


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


@pytest.mark.parametrize("name", WRITERS)
def test_every_file_has_the_mode_that_the_umask_gives(
    tmp_path: Path, umask: int, name: str
) -> None:
    file = tmp_path / "file.safetensors"
    for _ in range(2):
        WRITERS[name](file)
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask
    assert [file.name for file in tmp_path.iterdir()] == [file.name]


def test_a_stages_end_survives_a_power_failure_and_a_heartbeat_need_not(
    tiny_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    session = Session(tiny_run)
    session.stage("train", 0, 10)
    assert len(synced) == 2  # the file and its folder
    for step in range(1, 10):
        session._beat = 0.0
        session.advance(step, 1)
    assert len(synced) == 2
    session.end(stopped="SIGTERM")
    assert len(synced) == 4


def test_a_log_that_cannot_be_written_is_said_and_the_work_goes_on(
    tiny_run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run.log.mkdir()
    with open_session(tiny_run):
        logging.getLogger("mpdit").info("at work")
    said = capsys.readouterr().err
    assert "cannot write the log: " in said
    assert str(tiny_run.log) in said
    assert "at work" in said


def test_a_log_has_no_control_characters(
    tiny_run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_session(tiny_run):
        logging.getLogger("mpdit").warning("sbatch: %s", "\x1b[2J\x07bad\x9b")
    for said in (capsys.readouterr().err, tiny_run.log.read_text()):
        assert said.endswith("sbatch: \\x1b[2J\\x07bad\\x9b\n")
