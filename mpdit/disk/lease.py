"""Who may write into a run's folder: one process at a time, and none that has lost the right.

A node that fails, or is only cut off, may leave the process of its allocation running: an orphan,
which still writes when Slurm has long begun the job again elsewhere. Hence the rules:

1.  ``lock`` names the run's owner, which holds it (flock) as long as it lives. Who takes the run
    puts a lock of its own, already held, in the place of the old one: from then on it is the owner.
2.  A run that nobody holds is anyone's, save an earlier allocation's of the job that had it last.
3.  A run that is held may be taken by a later allocation of the holder's job (its restart count is
    higher), and by any job of the same user when the holder's, of the same cluster, is not running
    by Slurm's word (which may hide other users' jobs). To everyone else it is busy.
4.  Before it reads anything, the new owner removes what others have written aside and not renamed.
    A file of rows that it goes on with it replaces first, and does not append to.
5.  Every write below the folder of a run that this process has leased asks whether it is the owner
    still: when all is written aside, before the rename; when a file of rows is open, before the
    row. A process that is not ends at once.

So what an orphan renames is there before the new owner reads, or never: if it asked before there
was a new lock, then its file aside is older than rule 4. What it appends goes to the file that it
had opened, and that the new owner has replaced. None of this needs locks across hosts: where the
file system has none, the owner's name alone protects.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from mpdit.errors import ConfigError

TRIES = 20
TRY_S = 0.05
"""A reader (is_leased) holds the lock for an instant, too."""

_LEFT = re.compile(r"\.(.+\.[0-9a-f]{16}\.tmp|lock\.[0-9a-f]{16}|.+\.safetensors\.[a-z0-9_]{8})")
"""What killed processes leave: files written aside, locks, features as version 0.1 wrote them."""

log = logging.getLogger("mpdit")

_leases: list[Lease] = []  # this process's


class BusyError(RuntimeError):
    """Another process is executing this run."""


class LeaseLostError(BusyError):
    """Another process has taken over the run that this one was executing."""


@dataclass(frozen=True)
class Owner:
    """A process that has leased a run, as its lock names it.

    ``token`` is its own, 0 is nobody's. A job's earlier allocations have lower restart counts.
    """

    token: int = 0
    host: str = ""
    pid: int = 0
    cluster: str | None = None
    job: str | None = None
    restart: int = 0

    @classmethod
    def here(cls) -> Owner:
        """This process, with a new token."""
        return cls(
            token=secrets.randbits(62) + 1,
            host=socket.gethostname(),
            pid=os.getpid(),
            cluster=os.environ.get("SLURM_CLUSTER_NAME"),
            job=os.environ.get("SLURM_JOB_ID"),
            restart=int(os.environ.get("SLURM_RESTART_COUNT", 0)),
        )

    def __str__(self) -> str:
        if not self.token:
            return "another process"
        job = f" (job {self.job})" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"

    def is_same_job(self, other: Owner) -> bool:
        return self.job is not None and (self.cluster, self.job) == (other.cluster, other.job)

    def may_take_from(self, holder: Owner) -> bool:
        """Whether the holder can only be an orphan (rule 3)."""
        from mpdit import slurm  # here: not every reader of a run has to wait for it

        if self.is_same_job(holder):
            return self.restart > holder.restart
        if not self.job or not holder.job or self.cluster != holder.cluster:
            return False
        try:
            return not slurm.is_running(holder.job)
        except ConfigError:
            return False  # as long as nobody knows, it may be


_OWNER = TypeAdapter(Owner)


@dataclass
class Lease:
    """A run's folder, as long as this process is its owner.

    Attributes:
        orphan: from whom it was taken over, and who may still live.
    """

    folder: Path
    token: int
    orphan: Owner | None = None
    _orphans_lock: IO[bytes] | None = field(default=None, repr=False)

    def check(self) -> None:
        """Raises:
        LeaseLostError: when this process is not the owner any more.
        """
        owner = _read_owner(self.folder)
        if owner.token != self.token:
            raise LeaseLostError(f"{self.folder.name} has been taken over by {owner}")

    def has_orphan_ended(self) -> bool:
        """Whether it has let go of its lock, as far as this host can see."""
        return self._orphans_lock is None or try_lock(self._orphans_lock, fcntl.LOCK_EX)


@contextmanager
def take(folder: Path) -> Iterator[Lease]:
    """Own the run in ``folder``; the kernel lets go of it however the process ends.

    Raises:
        BusyError: when it is another process's (rules 2, 3).
    """
    me = Owner.here()
    with ExitStack() as stack:
        lock, free = _open_lock(folder)
        stack.enter_context(lock)
        content = lock.read()
        holder = _parse(content)
        if content and not holder.token:
            log.warning("%s is damaged; it counts as nobody's", folder / "lock")
        late = me.is_same_job(holder) and me.restart < holder.restart
        mine = os.fstat(lock.fileno()).st_uid == os.getuid()
        if late or not (free or (mine and me.may_take_from(holder))):
            raise BusyError(f"{folder.name} is being executed by {holder}")
        stack.enter_context(_replace_lock(folder, me))
        for left in folder.rglob(".*"):
            if _LEFT.fullmatch(left.name):
                left.unlink(missing_ok=True)
        lease = Lease(folder, me.token)
        if free:
            lock.close()
        else:
            lease.orphan, lease._orphans_lock = holder, lock
        yield stack.enter_context(share(lease))


@contextmanager
def share(lease: Lease) -> Iterator[Lease]:
    """Have this process's writes ask, too; for one that works for the owner."""
    _leases.append(lease)
    try:
        yield lease
    finally:
        _leases.remove(lease)


def check(path: Path) -> None:
    """To be asked before a write to ``path`` shows (rule 5).

    Raises:
        LeaseLostError: when it is in a run's folder that this process has leased, and lost.
    """
    if (lease := _lease_of(path)) is not None:
        lease.check()


def aside(file: Path) -> Path:
    """Where to write what is to become ``file``: every owner of a run has names of his own."""
    lease = _lease_of(file)
    return file.with_name(f".{file.name}.{f'{lease.token:016x}.' if lease else ''}tmp")


def try_lock(file: IO[Any], kind: int) -> bool:
    """flock without waiting; whether it was granted."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(folder: Path) -> bool:
    """Whether a living process on a host that shares this file system's locks owns it."""
    try:
        with (folder / "lock").open("rb") as file:
            return not try_lock(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _lease_of(path: Path) -> Lease | None:
    absolute = path.absolute()
    return next((a for a in _leases if absolute.is_relative_to(a.folder.absolute())), None)


def _open_lock(folder: Path) -> tuple[IO[bytes], bool]:
    """The lock, and whether it was free and is this process's now."""
    file = folder / "lock"
    handle: IO[bytes]
    for _ in range(TRIES):
        handle = file.open("a+b")
        handle.seek(0)
        granted = try_lock(handle, fcntl.LOCK_EX)
        if granted and os.path.samestat(os.fstat(handle.fileno()), file.stat()):
            return handle, True
        handle.close()  # it is held, or was replaced before it was granted
        time.sleep(TRY_S)
    return file.open("rb"), False


def _replace_lock(folder: Path, owner: Owner) -> IO[bytes]:
    lock, temporary = folder / "lock", folder / f".lock.{owner.token:016x}"
    try:
        temporary.write_bytes(json.dumps(asdict(owner)).encode())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = str(lock)
        raise
    try:
        handle = temporary.open("r+b")
        fcntl.flock(handle, fcntl.LOCK_EX)
        temporary.replace(lock)
    except FileNotFoundError:  # removed by a process that has taken the run in this moment
        raise BusyError(f"{folder.name} has just been taken by {_read_owner(folder)}") from None
    return handle


def _read_owner(folder: Path) -> Owner:
    try:
        return _parse((folder / "lock").read_bytes())
    except FileNotFoundError:
        return Owner()


def _parse(content: bytes) -> Owner:
    """Nobody, of a lock that has just been made, or is damaged. What a newer version has added is
    passed over.
    """
    try:
        return _OWNER.validate_json(content)
    except ValidationError:
        return Owner()
