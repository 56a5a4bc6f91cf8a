"""What a Slurm task does with its runs, without a Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpdit import slurm
from mpdit.disk.files import append_row, read_rows
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_FAILED, EXIT_INTERRUPTED, ConfigError
from mpdit.study.cluster.job import Job
from tests.helpers import stand_in
from tests.helpers.tiny import tiny_config

TASK = """\
import signal, sys
from pathlib import Path
from mpdit.study.cluster import job as module
from mpdit.study.cluster.job import Job
module.BUSY_S, module.BUSY_TRIES, module.RELEASED_S = 0.3, 1000, 0
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


def task(
    claim: Path, names: list[str], minutes: int = 1, stalls: int = 0, **slurm: str
) -> subprocess.Popen[str]:
    words = [str(claim), *stand_in.COMMAND, str(minutes), str(stalls), *names]
    process = subprocess.Popen(
        [sys.executable, "-c", TASK, *words],
        env={**os.environ, "SUBMITIT_EXECUTOR": "slurm", "SLURM_JOB_ID": "1", **slurm},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def status(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=30)
    return process.returncode


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    folder = tmp_path / "s" / ".jobs" / "claim"
    folder.mkdir(parents=True)
    return folder


def make(claim: Path, name: str) -> RunDir:
    run = RunDir(claim.parent.parent / name)
    run.write_config(tiny_config())
    return run


def starts(run: RunDir) -> int:
    return sum("began" in row for row in read_rows(run.path / "starts.jsonl"))


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


def test_a_run_that_is_released_from_a_shared_task_is_stopped_and_the_others_go_on(
    claim: Path,
) -> None:
    slow, other, never = make(claim, "slow"), make(claim, "steady"), make(claim, "never")
    (claim / "never.exit").write_text(f"{EXIT_INTERRUPTED}\n")
    process = task(claim, ["slow", "steady", "never"])
    wait_for_steps(slow)
    (claim / "slow.exit").write_text(f"{EXIT_INTERRUPTED}\n")
    assert status(process) == 0
    state = slow.state()
    assert state is not None
    assert (state.stopped, other.is_done(), never.state()) == ("SIGTERM", True, None)


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
    (claim / "cancelled").write_text("another\n")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    (claim / "cancelled").write_text("another\nslow\n")
    process.communicate(timeout=30)
    assert not (claim / "slow.exit").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_run_that_the_signal_met_before_it_could_catch_it_is_requeued(
    claim: Path, number: signal.Signals
) -> None:
    run = make(claim, f"early-{number.name}")
    process = task(claim, [run.name], minutes=60)
    wait_for_start(run)
    time.sleep(0.5)  # the task sees its end
    process.send_signal(signal.SIGUSR2)
    assert process.communicate(timeout=30)[0] == f"requeued 0 {run.name}\n"
    state = run.state()
    assert not (claim / f"{run.name}.exit").exists()
    assert state is not None
    assert state.error is None


def wait_for_start(run: RunDir) -> None:
    end = time.monotonic() + 30
    while not starts(run):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_task_that_is_stopped_before_it_has_started_its_runs_is_requeued(claim: Path) -> None:
    make(claim, "quick")
    again = Job(claim, stand_in.COMMAND, 1, 60, 30, stalls=2).checkpoint(["quick"])
    assert again.args == (["quick"],)
    assert vars(again.function)["stalls"] == 2
    assert list(claim.iterdir()) == []


def test_a_requeued_task_leaves_alone_what_it_has_let_go_of(claim: Path) -> None:
    failed, good = make(claim, "raises"), make(claim, "quick")
    names = ["raises", "quick"]
    (claim / "raises.exit").write_text("1\n")
    assert status(task(claim, names)) == 0
    assert (starts(failed), starts(good)) == (0, 1)
    assert status(task(claim, names)) == 0
    assert (starts(failed), starts(good)) == (0, 1)


def test_what_is_done_already_is_let_go_of(claim: Path) -> None:
    run = make(claim, "quick")
    append_row(run.path / "evaluation.jsonl", {"value": 1.0})
    assert status(task(claim, ["quick"])) == 0
    assert starts(run) == 0
    assert (claim / "quick.exit").read_text() == "0\n"


def test_a_run_that_another_process_holds_is_tried_again(claim: Path) -> None:
    run = make(claim, "quick")
    with run.lease():
        process = task(claim, ["quick"])
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert not (claim / "quick.exit").exists()
    assert status(process) == 0
    assert run.is_done()
    assert (claim / "quick.exit").exists()


def test_an_orphan_whose_run_dies_lets_go_of_nothing(
    claim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(claim, "slow")
    process = task(claim, ["slow"], SLURM_RESTART_COUNT="0")
    wait_for_steps(run)
    state = run.state()
    assert state is not None
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with run.lease():  # the next allocation's
        os.kill(state.pid, signal.SIGKILL)
        assert status(process) == EXIT_FAILED
    assert not (claim / "slow.exit").exists()


def test_a_run_without_a_folder_fails_and_stops_no_other(claim: Path) -> None:
    good = make(claim, "quick")
    assert status(task(claim, ["gone", "quick"])) == EXIT_FAILED
    assert (claim / "gone.exit").read_text() == "1\n"
    assert good.is_done()


def test_a_run_that_cannot_be_started_says_why(claim: Path) -> None:
    run = make(claim, "quick")
    run.log.mkdir()
    assert status(task(claim, ["quick"])) == EXIT_FAILED
    state = run.state()
    assert state is not None
    assert state.error is not None
    assert "Is a directory" in state.error


def test_a_job_whose_node_has_no_scontrol_does_not_ask_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="scontrol"):
        slurm.requeue("1")
