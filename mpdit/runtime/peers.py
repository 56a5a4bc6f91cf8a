"""Messages between the processes of a run, beside the training: failures and signs of life.

A process that waits in NCCL for a failed process would wait for minutes. So each process has a
thread that uses the store of the process group over its own connection.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from mpdit.errors import EXIT_FAILED
from mpdit.runtime.distributed import World

BEAT_S = 1.0
SILENT_S = 90.0
"""Seconds of silence after which a process counts as gone; no Python code blocks its thread so
long."""
TOLD_S = 5.0
"""Seconds that the others have to read why the main process failed, before the store ends."""
GRACE_S = 20.0
"""Seconds that a process has to end by itself, its last write included, when another has failed."""
NOBODY = ""


class Peers:
    """The other processes of a run.

    Args:
        ended: records why the run has failed, before the process exits.
    """

    def __init__(self, world: World, ended: Callable[[str], None]) -> None:
        self.world, self.ended = world, ended
        self.closed = threading.Event()
        self._store: Store | None = None
        self._read: str | None = None  # kept: the store may end before all who ask have read it
        self._thread: threading.Thread | None = None
        if world.size > 1:
            self._store = _store()
            self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)
            self._thread.start()

    def fail(self, message: str) -> bool:
        """Tell the others why this process fails.

        Returns:
            whether it is the first that fails.
        """
        if self._store is None:
            return True
        place = f"process {self.world.rank} of {socket.gethostname()}"
        told = json.dumps([self.world.rank, place, message])
        with suppress(RuntimeError):
            first: bool = self._store.compare_set("failed", NOBODY, told) == told.encode()
            if self.world.main:
                self._wait_until_told(self._store)
            return first
        return True  # the store has ended with its process

    def _wait_until_told(self, store: Store) -> None:
        end = time.monotonic() + TOLD_S
        others = [f"told {rank}" for rank in range(1, self.world.size)]
        while not store.check(others) and time.monotonic() < end:
            time.sleep(0.05)

    def reason(self, patience_s: float = 0.0) -> str | None:
        """Return which other process failed and why; wait for it up to ``patience_s`` seconds."""
        end = time.monotonic() + patience_s
        while self._store is not None:
            if self._read is not None:
                return self._read
            with suppress(RuntimeError):
                if self._store.check(["failed"]):
                    rank, place, message = json.loads(self._store.get("failed"))
                    if rank != self.world.rank:
                        who = "the main process" if rank == 0 else place
                        self._read = f"{who} failed: {message}"
                    self._store.set(f"told {self.world.rank}", "")
                    return self._read
            if time.monotonic() > end:
                return None
            time.sleep(0.05)
        return None

    def close(self) -> None:
        """Stop listening. Every process calls this before the process group is left."""
        if self._store is None or self.closed.is_set():
            return
        self.closed.set()
        with suppress(RuntimeError):
            self._store.set(f"beat {self.world.rank}", "closed")
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _watch(self) -> None:
        # the main process listens to all, and all listen to it
        others = range(1, self.world.size) if self.world.main else (0,)
        last, silent = dict.fromkeys(others, b""), dict.fromkeys(others, 0)
        beats = 0
        while not self.closed.wait(BEAT_S):
            beats += 1
            if reason := self.reason():
                self._leave(reason)
                return
            for rank in others:
                beat = self._exchange(rank, beats)
                # silence is counted in own beats, which stop too while a job is suspended
                silent[rank] = 0 if beat not in (b"", last[rank]) else silent[rank] + 1
                last[rank] = beat or last[rank]
                if last[rank] != b"closed" and silent[rank] * BEAT_S > SILENT_S:
                    self._leave(f"process {rank} sent no sign of life for {SILENT_S:.0f} s")
                    return

    def _exchange(self, rank: int, beats: int) -> bytes:
        """Send a sign of life, and return the last one of ``rank``; empty before its first."""
        assert self._store is not None
        with suppress(RuntimeError):
            self._store.set(f"beat {self.world.rank}", str(beats))
            if self._store.check([f"beat {rank}"]):
                found: bytes = self._store.get(f"beat {rank}")
                return found
        return b""

    def _leave(self, reason: str) -> None:
        """End this process, which may hang, unless it ends by itself."""
        if self.closed.wait(GRACE_S):
            return
        try:
            self.ended(reason)
        finally:  # also where another process has taken over the run
            os._exit(EXIT_FAILED)


@contextmanager
def heard(world: World, ended: Callable[[str], None]) -> Iterator[Peers]:
    """Listen to the other processes of a run (`Peers`)."""
    peers = Peers(world, ended)
    try:
        yield peers
    finally:
        peers.close()


def _store() -> Store:
    """Open a separate connection to the store through which the processes found each other."""
    place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")  # torchrun's store outlives one
    store = TCPStore(place, port, is_master=False, timeout=timedelta(seconds=30))
    return PrefixStore(f"mpdit {attempt}", store)
