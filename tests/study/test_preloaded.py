"""Runs that the local pool forks from a process with torch are the runs of ``mpdit.run``."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mpdit.disk.files import read_rows
from mpdit.disk.rundir import RunDir
from mpdit.study.pool import RUN_COMMAND
from mpdit.study.preloaded import Preloaded, serves
from mpdit.study.runprocess import cores, start_run
from mpdit.study.submission import Execution, Submission, submit
from tests.helpers.plans import plan
from tests.helpers.pools import PATIENCE_S, POOLS

BASE = """\
study: s
base:
  data: digits
  model: {depth: 1, width: 16, heads: 2, patch_size: 4}
  train: {steps: %d, batch_size: 8, learning_rate: 1e-3}
  sample: {count: 50, steps: 4}
"""


def started(results: Path, steps: int = 20) -> Submission:
    made = plan("seeds: 1", base=BASE % steps)
    submission = submit(made, results, Execution(command=list(RUN_COMMAND), max_parallel=cores()))
    assert submission.process is not None
    POOLS.append(submission.process)
    return submission


def only_run(submission: Submission) -> RunDir:
    (folder,) = (f for f in submission.study.path.iterdir() if (f / "config.yaml").exists())
    return RunDir(folder)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_forked_run_has_the_bits_of_a_process_of_its_own(results: Path, tmp_path: Path) -> None:
    submission = started(results)
    assert submission.process is not None
    assert submission.process.wait(PATIENCE_S) == 0
    forked = only_run(submission)
    alone = RunDir(tmp_path / forked.name)
    alone.write_config(forked.config())
    assert start_run(alone, RUN_COMMAND, threads=1).wait(PATIENCE_S) == 0
    written = [*(alone.path / "ema").iterdir(), alone.path / "samples" / "samples.npz"]
    for file in written:
        other = forked.path / file.relative_to(alone.path)
        assert other.read_bytes() == file.read_bytes(), file.name
    assert (
        read_rows(forked.path / "evaluation.jsonl")[0]["value"]
        == (read_rows(alone.path / "evaluation.jsonl")[0]["value"])
    )
    assert "RuntimeWarning" not in forked.log.read_text()


def test_a_forked_run_keeps_its_state_when_it_is_told_to_stop(results: Path) -> None:
    submission = started(results, steps=100_000)
    run = only_run(submission)
    wait_for(lambda: (state := run.state()) and state.step > 2)
    assert submission.process is not None
    if sys.platform == "linux":  # it is forked, and not started as a program of its own
        pool = submission.process.pid
        children = Path(f"/proc/{pool}/task/{pool}/children").read_text().split()
        lines = [Path(f"/proc/{child}/cmdline").read_text() for child in children]
        assert any("multiprocessing.forkserver" in line for line in lines)
        assert not any("-m\0mpdit.run" in line for line in lines)
    submission.process.send_signal(signal.SIGTERM)
    assert submission.process.wait(PATIENCE_S) == 0
    state = run.state()
    assert state is not None
    assert (state.stopped, state.error) == ("SIGTERM", None)
    assert list(run.checkpoints.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("config", [None, "model: {depth: x}"], ids=["done", "wrong"])
def test_exit_status_and_output_are_those_of_a_process(results: Path, config: str | None) -> None:
    submission = started(results)
    assert submission.process is not None
    submission.process.wait(PATIENCE_S)
    run = only_run(submission)
    if config is not None:
        (run.path / "config.yaml").write_text(config)
    outputs = []
    for start in (
        lambda: Preloaded().start([str(run.path)], run.log, dict(os.environ)),
        lambda: start_run(run, RUN_COMMAND, 1),
    ):
        run.log.unlink()
        process = start()
        wait_for(lambda process=process: process.poll() is not None)
        outputs.append((process.returncode, run.log.read_text()))
    assert outputs[0] == outputs[1]


@pytest.mark.long
def test_runs_are_done_where_no_socket_fits_into_the_temporary_folder(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    submission = started(results)
    assert submission.process is not None
    assert submission.process.wait(PATIENCE_S) == 0
    assert only_run(submission).is_done()


def test_live_code_is_imported_by_each_run_anew(results: Path) -> None:
    made = plan("seeds: 1", base=BASE % 20)
    live = submit(made, results, Execution(command=list(RUN_COMMAND), live_code=True))
    assert live.process is not None
    POOLS.append(live.process)
    assert not serves(only_run(live).path)
