"""The lease of a run: one process at a time may write into its folder.

A node that fails or loses its network may leave the process of its allocation running. This orphan
still writes after Slurm has restarted the job elsewhere. Hence the rules:

1.  ``lock`` names the run's owner, which holds it (flock) as long as it lives. A process takes the
    run by replacing the lock with its own, which it already holds.
2.  Any process may take a run that nobody holds, except an earlier allocation of its last job.
3.  A held run may be taken by a later allocation of the holder's job (with a higher restart count).
    Any job of the same user may take it when Slurm reports that the holder's job, of the same
    cluster, does not run (Slurm may hide other users' jobs). For all others it is busy.
4.  Before it reads anything, the new owner removes the files that others wrote aside and did not
    rename. It replaces a file of rows before it appends to it.
5.  Every write below the folder of a leased run first checks that this process is still the owner:
    after writing aside, before the rename; after opening a file of rows, before the row. A process
    that is not the owner exits at once.

So an orphan renames a file before the new owner reads it, or never: if it checked before the new
lock, its file aside is older than rule 4. Its rows go to a file that the new owner has replaced.
None of this needs locks across hosts: where the file system has none, the owner's name protects.
Where it has no locks at all, an owner holds its run while its process lives on this host, and it
empties the lock at its end.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from mpdit.disk import links
from mpdit.errors import ConfigError

TRIES = 20
TRY_S = 0.05
"""Attempts to take a lock: a reader (is_held) also holds it for an instant."""

NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""flock's errors on a file system without locks: Lustre without flock, NFS with nolock."""

_LEFT = re.compile(r"\.(.+\.[0-9a-f]{16}\.tmp|lock\.[0-9a-f]{16}|.+\.safetensors\.[a-z0-9_]{8})")
"""Leftovers of killed processes: files written aside, locks, features of version 0.1."""

_ABANDONED = re.compile(r"\..+\.(tmp|part)")
ABANDONED_S = 3600
"""Seconds after which a file that was written aside counts as left by a killed process."""

log = logging.getLogger("mpdit")

_leases: list[Lease] = []  # this process's


class BusyError(RuntimeError):
    """Another process is executing this run."""


class LeaseLostError(BusyError):
    """Another process has taken over the run that this process was executing."""


@dataclass(frozen=True)
class Owner:
    """The process that has leased a run, as the run's lock names it.

    ``token`` identifies it; 0 is nobody. Earlier allocations of a job have lower restart counts.
    """

    token: int = 0
    host: str = ""
    pid: int = 0
    cluster: str | None = None
    job: str | None = None
    restart: int = 0

    @classmethod
    def here(cls) -> Owner:
        """Describe this process, with a new token."""
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

    @property
    def lives_here(self) -> bool:
        """Whether its process lives on this host."""
        return self.host == socket.gethostname() and process_exists(self.pid)

    def may_take_from(self, holder: Owner) -> bool:
        """Whether the holder can only be an orphan (rule 3)."""
        from mpdit import slurm  # slow to import, and few readers of a run need it

        if self.is_same_job(holder):
            return self.restart > holder.restart
        if not self.job or not holder.job or self.cluster != holder.cluster:
            return False
        try:
            return not slurm.is_running(holder.job)
        except ConfigError:
            return False  # unknown: it may be running


_OWNER = TypeAdapter(Owner)


@dataclass
class Lease:
    """A run's folder that this process owns.

    Attributes:
        orphan: the previous owner, if it may still live.
    """

    folder: Path
    token: int
    orphan: Owner | None = None
    _orphans_lock: IO[bytes] | None = field(default=None, repr=False)

    def check(self) -> None:
        """Raises:
        LeaseLostError: when this process no longer owns the run.
        """
        owner = _read_owner(self.folder)
        if owner.token != self.token:
            raise LeaseLostError(f"{self.folder.name} has been taken over by {owner}")

    def has_orphan_ended(self) -> bool:
        """Whether the orphan has released its lock, as far as this host can see."""
        if self._orphans_lock is None or self.orphan is None:
            return True
        granted = lock(self._orphans_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return not self.orphan.lives_here if granted is None else granted


@contextmanager
def take(folder: Path) -> Iterator[Lease]:
    """Own the run in ``folder``. The kernel releases it, however the process ends.

    Raises:
        BusyError: when another process owns it (rules 2, 3).
    """
    me = Owner.here()
    links.check(folder / "lock")
    with ExitStack() as stack:
        held, free = _open_lock(folder)
        stack.enter_context(held)
        content = held.read()
        holder = _parse(content)
        if content and not holder.token:
            log.warning("%s is damaged; it counts as nobody's", folder / "lock")
        late = me.is_same_job(holder) and me.restart < holder.restart
        mine = os.fstat(held.fileno()).st_uid == os.getuid()
        if late or not (free or (mine and me.may_take_from(holder))):
            raise BusyError(f"{folder.name} is being executed by {holder}")
        own = stack.enter_context(_replace_lock(folder, me))
        for left in folder.rglob(".*"):
            if _LEFT.fullmatch(left.name):
                left.unlink(missing_ok=True)
        sweep(folder.rglob(".*"))
        lease = Lease(folder, me.token)
        if free:
            held.close()
        else:
            lease.orphan, lease._orphans_lock = holder, held
        if lock(own, fcntl.LOCK_EX) is None:
            stack.callback(_empty_lock, lease)
        yield stack.enter_context(share(lease))


def sweep(found: Iterable[Path]) -> None:
    """Remove the files among ``found`` that were written aside an hour ago and never renamed."""
    for left in found:
        if _ABANDONED.fullmatch(left.name):
            with suppress(FileNotFoundError):
                if time.time() - left.lstat().st_mtime > ABANDONED_S:
                    left.unlink()


@contextmanager
def share(lease: Lease) -> Iterator[Lease]:
    """Check the writes of this process too, which works for the owner."""
    _leases.append(lease)
    try:
        yield lease
    finally:
        _leases.remove(lease)


def check(path: Path) -> None:
    """Check links and the lease, if any, before a write to ``path`` takes effect (rule 5).

    Raises:
        LeaseLostError: when ``path`` is in a run that this process has leased and lost.
        ConfigError: when ``path``, or a folder that it lies in, is a link (`links`).
    """
    links.check(path)
    if (lease := lease_of(path)) is not None:
        lease.check()


def lock(file: IO[Any], kind: int) -> bool | None:
    """Lock by flock; return whether it was granted, None on a file system without locks.

    Args:
        kind: ``fcntl.LOCK_EX`` or ``LOCK_SH``; with ``LOCK_NB`` the call does not wait.
    """
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def process_exists(pid: int) -> bool:
    """Whether a process of this host lives."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0


def is_held(folder: Path) -> bool:
    """Whether a living process owns the run, on a host that shares this file system's locks."""
    try:
        with (folder / "lock").open("rb") as file:
            granted = lock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return _parse(file.read()).lives_here if granted is None else not granted
    except (FileNotFoundError, PermissionError):  # an unreadable one is another user's
        return False


def lease_of(path: Path) -> Lease | None:
    """This process's lease of the run that ``path`` lies in."""
    absolute = path.absolute()
    return next((a for a in _leases if absolute.is_relative_to(a.folder.absolute())), None)


def _open_lock(folder: Path) -> tuple[IO[bytes], bool]:
    """Open the lock; return it, and whether it was free, so that this process now holds it."""
    file = folder / "lock"
    handle: IO[bytes]
    for _ in range(TRIES):
        handle = file.open("a+b")
        handle.seek(0)
        granted = lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if granted is None:
            free = not _parse(handle.read()).lives_here
            handle.seek(0)
            return handle, free
        if granted and os.path.samestat(os.fstat(handle.fileno()), file.stat()):
            return handle, True
        handle.close()  # another process holds it, or has replaced it
        time.sleep(TRY_S)
    return file.open("rb"), False


def _replace_lock(folder: Path, owner: Owner) -> IO[bytes]:
    file, temporary = folder / "lock", folder / f".lock.{owner.token:016x}"
    try:
        with temporary.open("xb") as aside:
            aside.write(json.dumps(asdict(owner)).encode())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        error.filename = str(file)
        raise
    try:
        handle = temporary.open("r+b")
        lock(handle, fcntl.LOCK_EX)
        temporary.replace(file)
    except FileNotFoundError:  # removed by a process that has taken the run in this moment
        raise BusyError(f"{folder.name} has just been taken by {_read_owner(folder)}") from None
    return handle


def _empty_lock(lease: Lease) -> None:
    """Release a run, where the kernel does not, by an empty lock."""
    with suppress(OSError, LeaseLostError):
        lease.check()
        os.truncate(lease.folder / "lock", 0)


def _read_owner(folder: Path) -> Owner:
    try:
        return _parse((folder / "lock").read_bytes())
    except FileNotFoundError:
        return Owner()


def _parse(content: bytes) -> Owner:
    """Read the owner from a lock's content: nobody where it was just created or is damaged.

    Keys that a newer version has added are ignored.
    """
    try:
        return _OWNER.validate_json(content)
    except ValidationError:
        return Owner()
