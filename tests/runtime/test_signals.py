"""A request to stop is heard from a run's first line on, and only by the run itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpdit.errors import EXIT_INTERRUPTED
from tests.helpers.interrupted import fork, start
from tests.helpers.tiny import make


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_a_signal_while_torch_is_imported_stops_the_run_with_its_state_kept(
    tmp_path: Path, number: signal.Signals
) -> None:
    run = make(tmp_path / "run")
    process = start(run)
    while not catches(process.pid, signal.SIGUSR2):
        assert process.poll() is None
        time.sleep(0.001)
    assert run.state() is None  # some seconds yet
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, output
    assert f"stopped by {number.name} at train" in output
    state = run.state()
    assert state is not None
    assert state.stopped == number.name


def lose_a_helper() -> None:
    """Slurm signals every process of a job, so that a compiler ends first."""
    import mpdit.run

    def fail(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR2)
        raise RuntimeError("the compiler was killed")

    mpdit.run.record_start = fail  # type: ignore[assignment]


def test_an_error_that_comes_of_the_signal_is_no_failure(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    process = fork(run, prepare=lose_a_helper)
    process.join(timeout=60)
    assert process.exitcode == EXIT_INTERRUPTED
    state = run.state()
    assert state is not None
    assert (state.stopped, state.error) == ("SIGUSR2", None)
    assert "RuntimeError: the compiler was killed" in run.log.read_text()


def test_forked_helpers_pass_over_what_slurm_sends_to_all_and_end_when_told() -> None:
    script = """
import os, signal, sys, time
from mpdit.runtime import signals
heard = []
with signals.watched(heard.append):
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGUSR2)
        print("lives", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), heard, flush=True)
    os.kill(os.getpid(), signal.SIGUSR2)
    print(heard)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split("\n")[:3] == ["lives", "-15 []", "[12]"], done.stderr
