"""What a Slurm task does with its runs, without a Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stand_in
from conftest import tiny_config

from mpdit.study.rundir import EXIT_FAILED, RunDir

TASK = """\
import signal, sys
from pathlib import Path
from mpdit.study.job import Job
minutes, stalls, names = int(sys.argv[4]), int(sys.argv[5]), sys.argv[6:]
job = Job(Path(sys.argv[1]), sys.argv[2:4], len(names), minutes, 30, stalls)
def checkpoint(*_):
    again = job.checkpoint(names)
    print("requeued", again.function.stalls, *again.args[0])
    sys.exit(0)
signal.signal(signal.SIGUSR2, checkpoint)
print("ready", flush=True)
job(names)
"""


def task(claim: Path, names: list[str], minutes: int = 1, stalls: int = 0) -> subprocess.Popen[str]:
    words = [str(claim), *stand_in.COMMAND, str(minutes), str(stalls), *names]
    process = subprocess.Popen(
        [sys.executable, "-c", TASK, *words],
        env={**os.environ, "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "s" / ".jobs" / "claim"
    folder.mkdir(parents=True)
    return folder


def make(claim: Path, name: str) -> RunDir:
    run = RunDir(claim.parent.parent / name)
    run.write_config(tiny_config())
    return run


def wait_for_steps(run: RunDir) -> None:
    end = time.monotonic() + 30
    while (state := run.state()) is None or state.step < 3:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_checkpoint_requeues_what_is_not_done_and_lets_go_of_what_is(claim: Path) -> None:
    slow, quick = make(claim, "slow"), make(claim, "quick")
    process = task(claim, ["slow", "quick"])
    wait_for_steps(slow)
    while not (claim / "quick.exit").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=30)[0] == "requeued 0 slow quick\n"
    assert [file.name for file in claim.iterdir()] == ["quick.exit"]
    state = slow.state()
    assert state is not None
    assert (state.stopped, quick.is_done()) == ("SIGTERM", True)


@pytest.mark.parametrize(("minutes", "counted"), [(1, 2), (60, 1)])
def test_only_an_allocation_that_ran_out_counts_as_one_that_got_nowhere(
    claim: Path, minutes: int, counted: int
) -> None:
    run = make(claim, "stuck")
    process = task(claim, ["stuck"], minutes, stalls=1)
    wait_for_steps(run)
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=30)[0] == f"requeued {counted} stuck\n"


def test_what_gets_nowhere_three_times_is_not_requeued_for_ever(claim: Path) -> None:
    run = make(claim, "stuck")
    process = task(claim, ["stuck"], stalls=2)
    wait_for_steps(run)
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=30)[0] == ""
    assert process.returncode == EXIT_FAILED
    state = run.state()
    assert state is not None
    assert state.error is not None
    assert state.error.startswith("timed out: 3 allocations of 1 min in a row ended")
    assert (claim / "stuck.exit").exists()


def test_a_task_whose_runs_were_stopped_waits_for_slurm_unless_it_was_cancelled(
    claim: Path,
) -> None:
    run = make(claim, "slow")
    process = task(claim, ["slow"])
    wait_for_steps(run)
    state = run.state()
    assert state is not None
    os.kill(state.pid, signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    (claim / "cancelled").touch()
    process.communicate(timeout=30)
    assert not (claim / "slow.exit").exists()
