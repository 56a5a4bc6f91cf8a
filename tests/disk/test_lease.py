"""A run has one owner, and an orphan of a failed node writes nothing into what it has lost."""

import importlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import numpy as np
import pytest
import torch

from mpdit import slurm
from mpdit.disk import lease
from mpdit.disk.files import append_row, keep_rows, new_aside, read_rows
from mpdit.disk.lease import BusyError, Lease, LeaseLostError, share
from mpdit.disk.rundir import RunDir, RunState
from mpdit.ema.power import write_snapshot
from mpdit.errors import EXIT_BUSY, EXIT_DONE, EXIT_FAILED, ConfigError
from mpdit.evaluation import features
from mpdit.training import checkpoint
from tests.helpers.interrupted import FORKED, finish_forked, fork, science_of, signal_at_call
from tests.helpers.tiny import make

FIRST, REQUEUED = {"SLURM_JOB_ID": "7"}, {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
"""What Slurm tells the first and the second allocation of one job."""


NAMES = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME")


def become(environment: dict[str, str]) -> None:
    """A process of that allocation."""
    for name in NAMES:
        os.environ.pop(name, None)
    os.environ.update(environment)


@pytest.fixture(autouse=True)
def _no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # to be put back
    monkeypatch.setattr(lease, "TRY_S", 0.001)
    become({})


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


# Who may have a run ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("holder", "taker", "running", "granted"),
    [
        ({}, {}, [], False),
        (FIRST, {}, [], False),
        ({}, FIRST, [], False),
        (FIRST, FIRST, ["7"], False),
        (FIRST, REQUEUED, ["7"], True),
        (REQUEUED, FIRST, ["7"], False),
        (FIRST, {"SLURM_JOB_ID": "8"}, ["7", "8"], False),
        (FIRST, {"SLURM_JOB_ID": "8"}, ["8"], True),
        (FIRST, {"SLURM_JOB_ID": "8"}, None, False),
        (FIRST, {"SLURM_JOB_ID": "8", "SLURM_CLUSTER_NAME": "other"}, ["8"], False),
        (FIRST, REQUEUED | {"SLURM_CLUSTER_NAME": "other"}, ["7"], False),
    ],
)
def test_a_run_that_is_held_can_be_taken_only_from_an_orphan(
    tiny_run: RunDir,
    monkeypatch: pytest.MonkeyPatch,
    holder: dict[str, str],
    taker: dict[str, str],
    running: list[str] | None,
    granted: bool,
) -> None:
    """``running``: what Slurm says, None when it says nothing."""

    def is_running(job: str) -> bool:
        if running is None:
            raise ConfigError("Slurm's controller does not answer")
        return job in running

    monkeypatch.setattr(slurm, "is_running", is_running)
    become(holder)
    with tiny_run.lease() as first:
        become(taker)
        if not granted:
            with (
                pytest.raises(BusyError, match=f"executed by process {os.getpid()} on"),
                tiny_run.lease(),
            ):
                pass
            first.check()
            return
        with tiny_run.lease() as second:
            second.check()
            assert second.orphan is not None
            assert not second.has_orphan_ended()
            with pytest.raises(LeaseLostError, match=f"taken over by process {os.getpid()} on"):
                first.check()


def test_a_run_that_nobody_holds_is_anyones_but_an_earlier_allocations(tiny_run: RunDir) -> None:
    for environment in ({}, FIRST, {"SLURM_JOB_ID": "8"}, REQUEUED):
        become(environment)
        with tiny_run.lease() as held:
            assert held.orphan is None
    become(FIRST)  # it has been starting up since before it was cut off
    with pytest.raises(BusyError), tiny_run.lease():
        pass
    become({})
    with tiny_run.lease():
        pass


def test_a_run_is_leased_as_long_as_its_owner_holds_it(tiny_run: RunDir) -> None:
    assert not tiny_run.is_leased()
    with tiny_run.lease():
        assert tiny_run.is_leased()
        assert [file.name for file in tiny_run.path.glob("*lock*")] == ["lock"]
    assert not tiny_run.is_leased()


def test_what_an_orphan_has_half_written_is_removed_and_what_others_write_is_not(
    tiny_run: RunDir,
) -> None:
    with tiny_run.lease():
        left = new_aside(tiny_run.path / "state.json")
        left.write_text("half")
    other = new_aside(tiny_run.path / "note")
    other.write_text("of someone without a lease")
    with tiny_run.lease():
        assert not left.exists()
        assert other.exists()


def test_without_room_for_its_lock_a_run_says_so_and_keeps_the_last_one(
    tiny_run: RunDir, tmp_path: Path
) -> None:
    with tiny_run.lease():
        pass
    before = contents(tiny_run.path)
    said = tmp_path / "said.txt"
    process = fork(tiny_run, said, largest_file=20)  # which cuts off what it says, too
    process.join(timeout=60)
    assert process.exitcode == EXIT_FAILED
    assert said.read_text() == "error: cannot write "
    assert contents(tiny_run.path) == before


# What an orphan can do ---------------------------------------------------------------------------

WRITES: dict[str, Callable[[RunDir], object]] = {
    "state": lambda run: run.write_state(RunState()),
    "row": lambda run: append_row(run.path / "metrics.jsonl", {"step": 9}),
    "rows": lambda run: keep_rows(run.path / "evaluation.jsonl", [{"value": 9.0}]),
    "checkpoint": lambda run: checkpoint.save(run.checkpoints, 9, {"step": 9}),
    "snapshot": lambda run: write_snapshot(run.ema / "a.safetensors", {"w": torch.zeros(2)}),
    "features": lambda run: features.keep(run.samples / "f.safetensors", {}, {"a": np.zeros(2)}),
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("helper", [False, True])
def test_whoever_has_lost_a_run_writes_nothing_into_it(
    tiny_run: RunDir, name: str, helper: bool
) -> None:
    """Neither does another process of the same run, which shares the lease."""
    for folder in (tiny_run.checkpoints, tiny_run.ema, tiny_run.samples):
        folder.mkdir()
    append_row(tiny_run.path / "metrics.jsonl", {"step": 1})
    become(FIRST)
    with tiny_run.lease() as orphan:
        WRITES[name](tiny_run)
        lock = (tiny_run.path / "lock").read_bytes()
    before = contents(tiny_run.path)
    (tiny_run.path / "lock").write_bytes(lock.replace(b'"token": ', b'"token": 1'))  # another's
    there = contents(tiny_run.path)
    assert there.keys() == before.keys()
    token = orphan.token + 1 if helper else orphan.token
    with share(Lease(tiny_run.path, token)), pytest.raises(LeaseLostError):
        WRITES[name](tiny_run)
    assert contents(tiny_run.path) == there


def write_all(run: RunDir, step: int, value: float) -> None:
    """What a process that trains and evaluates writes, of every kind."""
    run.write_state(RunState(step=step, loss=value))
    append_row(run.path / "metrics.jsonl", {"step": step, "loss": value})
    checkpoint.save(run.checkpoints, step, {"step": step, "w": torch.full((3,), value)})
    keep_rows(run.path / "evaluation.jsonl", [{"value": value}])


def go_on(run: RunDir) -> None:
    """Resume as the trainer does, and write under names that the orphan uses too."""
    state = checkpoint.load_newest(run.checkpoints, torch.device("cpu"), lambda _warning: None)
    step = state["step"] if state else 0
    metrics = run.path / "metrics.jsonl"
    rows = [row for row in read_rows(metrics) if row["step"] <= step]
    assert [row["step"] for row in rows] == list(range(1, step + 1))
    keep_rows(metrics, rows)
    for later in range(step + 1, step + 3):
        write_all(run, later, 100.0 + later)


def stop_at_every_call(folder: Path) -> None:
    """An orphan stops a call later each time, is taken over from, and goes on; until none stops."""
    lease.TRIES = 1
    for number in itertools.count(1):
        run = RunDir(folder / str(number))
        run.path.mkdir()
        become({})
        with run.lease():
            write_all(run, 1, 1.0)
        child = os.fork()
        if child == 0:
            become(FIRST)
            status = EXIT_BUSY
            with run.lease():
                try:
                    signal_at_call(number, signal.SIGSTOP, lambda: write_all(run, 2, 2.0))  # noqa: B023
                    status = EXIT_DONE
                except LeaseLostError:
                    pass
            os._exit(status)
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            assert os.waitstatus_to_exitcode(status) == EXIT_DONE
            return
        become(REQUEUED)
        with run.lease() as held:
            assert held.orphan is not None
            go_on(run)
            before = contents(run.path)
            os.kill(child, signal.SIGCONT)
            _, status = os.waitpid(child, 0)
            (run.path.parent / f"{number}.exit").write_text(str(os.waitstatus_to_exitcode(status)))
            assert held.has_orphan_ended()
            assert contents(run.path) == before


def test_an_orphan_that_sleeps_before_any_of_its_calls_changes_nothing_when_it_wakes(
    tmp_path: Path,
) -> None:
    process = FORKED.Process(target=stop_at_every_call, args=(tmp_path,))
    process.start()
    process.join(timeout=240)
    assert process.exitcode == 0
    exits = [int(file.read_text()) for file in tmp_path.glob("*.exit")]
    assert len(exits) > 60
    assert set(exits) <= {EXIT_BUSY, EXIT_DONE}  # done, if it had written the last byte before
    assert exits.count(EXIT_BUSY) > 50


# Whole runs --------------------------------------------------------------------------------------

LONG = {
    "train": {
        "steps": 120,
        "snapshot_every": 6,
        "checkpoint_every": 7,
        "log_every": 3,
        "probe_every": 20,
    },
    "sample": {"count": 60, "steps": 20, "batch_size": 5},
}


@dataclass(frozen=True)
class Allocation:
    """What befalls a process of a job before the run.

    Attributes:
        stops: (module, function, number of the call) at which it stops itself.
        slow: whether training takes seconds longer.
        locks: whether the file system has any.
    """

    environment: dict[str, str]
    stops: tuple[str, str, int] | None = None
    slow: bool = False
    locks: bool = True

    def __call__(self) -> None:
        become(self.environment)
        importlib.import_module("mpdit.run").PATIENCE_S = 0.5  # type: ignore[attr-defined]
        if not self.locks:
            lease.try_lock = lambda *_: True  # type: ignore[assignment]
        if self.slow:
            before_each("mpdit.training.trainer", "append_row", lambda _number: time.sleep(0.3))
        if self.stops is not None:
            module, name, last = self.stops
            before_each(module, name, lambda number: number == last and stop_here())


def before_each(module: str, name: str, action: Callable[[int], object]) -> None:
    """Act before each call of a module's function, given the call's number."""
    found = importlib.import_module(module)
    function, calls = getattr(found, name), itertools.count(1)

    def acting(*args: object) -> object:
        action(next(calls))
        return function(*args)

    setattr(found, name, acting)


def stop_here() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    run = make(tmp_path_factory.mktemp("study") / "whole", **LONG)
    finish_forked(run)
    return run


def wait_for_stop(process: ForkServerProcess) -> None:
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.is_alive()
        time.sleep(0.01)


def wait_for_rows(run: RunDir, process: ForkServerProcess, count: int) -> None:
    while len(read_rows(run.path / "metrics.jsonl")) < count:
        assert process.is_alive()
        time.sleep(0.005)


@pytest.mark.long
@pytest.mark.parametrize(
    "stops",
    [
        ("mpdit.run", "record_start", 1),
        ("mpdit.training.trainer", "append_row", 9),
        ("mpdit.training.checkpoint", "_write", 4),
        ("mpdit.ema.power", "save_file", 5),
        ("mpdit.sampling.sampler", "to_uint8", 3),
        ("mpdit.evaluation.evaluation", "keep_rows", 1),
    ],
    ids=lambda stops: stops[1],
)
def test_an_orphan_that_wakes_when_its_run_is_done_ends_without_a_word(
    whole: RunDir, tmp_path: Path, stops: tuple[str, str, int]
) -> None:
    run, said = make(tmp_path / "run", **LONG), tmp_path / "said.txt"
    orphan = fork(run, said, prepare=Allocation(FIRST, stops))
    wait_for_stop(orphan)
    other = fork(run, prepare=Allocation(REQUEUED))
    other.join(timeout=120)
    assert other.exitcode == EXIT_DONE
    assert f"taken over from process {orphan.pid} on" in run.log.read_text()
    assert "previous owner still alive after" in run.log.read_text()
    before = contents(run.path)
    assert orphan.pid is not None
    os.kill(orphan.pid, signal.SIGCONT)
    orphan.join(timeout=60)
    assert orphan.exitcode == EXIT_BUSY
    assert "has been taken over by process" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert contents(run.path) == before
    assert science_of(run) == science_of(whole)


@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
def test_an_orphan_at_work_ends_once_another_has_its_run_which_comes_to_the_same_bits(
    whole: RunDir, tmp_path: Path, locks: bool
) -> None:
    """With or without locks across hosts."""
    run, said = make(tmp_path / "run", **LONG), tmp_path / "said.txt"
    orphan = fork(run, said, prepare=Allocation(FIRST, slow=True, locks=locks))
    wait_for_rows(run, orphan, 8)
    other = fork(run, prepare=Allocation(REQUEUED, locks=locks))
    orphan.join(timeout=60)
    assert orphan.exitcode == EXIT_BUSY
    assert "has been taken over by process" in said.read_text()
    other.join(timeout=120)
    assert other.exitcode == EXIT_DONE
    assert science_of(run) == science_of(whole)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_what_another_user_holds_is_busy_whatever_slurm_shows(
    tiny_run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "is_running", lambda _: False)
    become(FIRST)
    with tiny_run.lease() as first:
        os.chown(tiny_run.path / "lock", 12345, -1)
        become({"SLURM_JOB_ID": "8"})
        with pytest.raises(BusyError), tiny_run.lease():
            pass
        first.check()
