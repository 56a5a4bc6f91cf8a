"""A file system without flock: the owner's name protects a run, and a pool's process its claim."""

import errno
import fcntl
import json
import os
import socket
from pathlib import Path

import pytest

from mpdit.disk.lease import BusyError, Owner
from mpdit.disk.rundir import RunDir
from mpdit.errors import EXIT_DONE
from mpdit.study.status import survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, submit
from tests.helpers import stand_in
from tests.helpers.interrupted import fork
from tests.helpers.plans import plan


def refuse(code: int) -> None:
    def flock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    fcntl.flock = flock  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def _no_locks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(fcntl, "flock", fcntl.flock)  # to be put back
    refuse(getattr(request, "param", errno.ENOSYS))


def ended() -> int:
    """The id of a process that has ended."""
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)
    return child


@pytest.mark.parametrize("_no_locks", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], indirect=True)
def test_a_run_is_held_while_its_owner_lives(tiny_run: RunDir) -> None:
    with tiny_run.lease():
        assert tiny_run.is_leased()
        with (
            pytest.raises(BusyError, match=f"executed by process {os.getpid()} on"),
            tiny_run.lease(),
        ):
            pass
    assert not tiny_run.is_leased()
    with tiny_run.lease() as again:
        again.check()


@pytest.mark.parametrize("host", [socket.gethostname(), "elsewhere"])
def test_a_run_whose_owner_was_killed_or_is_elsewhere_can_be_taken(
    tiny_run: RunDir, host: str
) -> None:
    owner = {"token": 7, "host": host, "pid": ended()}
    (tiny_run.path / "lock").write_text(json.dumps(owner))
    assert not tiny_run.is_leased()
    with tiny_run.lease() as held:
        held.check()


def test_submission_and_status_work(tmp_path: Path) -> None:
    done = submit(
        plan("variants: {slow: {}}"), tmp_path / "results", Execution(command=stand_in.COMMAND)
    )
    assert done.process is not None
    (claim,) = done.study.claims()
    assert claim.is_live
    (status,) = survey(StudyDir(done.study.path))
    assert status.is_active
    again = submit(
        plan("variants: {slow: {}}"), tmp_path / "results", Execution(command=stand_in.COMMAND)
    )
    assert again.started == ()
    done.stop()
    done.process.wait(60)
    assert StudyDir(done.study.path).claims() == []


def test_a_run_comes_to_its_end(tiny_run: RunDir) -> None:
    process = fork(tiny_run, prepare=_without)
    process.join(timeout=120)
    assert process.exitcode == EXIT_DONE
    assert tiny_run.is_done()
    assert (tiny_run.path / "lock").read_bytes() == b""


def _without() -> None:
    refuse(errno.ENOSYS)


def test_an_owner_that_cannot_be_seen_is_not_alive() -> None:
    assert not Owner(token=1, host="elsewhere", pid=os.getpid()).lives_here
    assert Owner.here().lives_here
