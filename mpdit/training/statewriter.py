"""Copies of the training state, written to files by a thread while training continues."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Semaphore
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound=dict[Any, Any])

PENDING = 2
"""Copies held at once: usually a snapshot and a checkpoint of the same step."""


class StateWriter:
    """Writes states in the order in which they were submitted.

    Training waits for the copy to the host. It waits for the disk only if it submits states faster
    than the disk takes them. After the first error nothing more is written: otherwise a resume from
    a later checkpoint would lack an earlier snapshot.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "state-writer")
        self._free = Semaphore(PENDING)
        self._error: BaseException | None = None

    def submit(self, state: T, write: Callable[[T], None]) -> None:
        """Copy ``state`` as it is now, and let the thread call ``write`` with the copy.

        Raises:
            OSError: as `check`.
        """
        self.check()
        self._free.acquire()
        copied = on_host(state)
        # on a GPU the copies are queued behind the step's kernels, and before the next step's
        arrival = torch.cuda.Event() if torch.cuda.is_initialized() else None
        if arrival is not None:
            arrival.record()
        self._thread.submit(self._write, copied, arrival, write)

    def check(self) -> None:
        """Raise the error, if any, that a write has ended with.

        Raises:
            OSError: when the disk is full, for example.
            LeaseLostError: when another process has taken over the run.
        """
        if self._error is not None:
            raise self._error

    def settle(self) -> None:
        """Wait until everything is written or has failed."""
        self._thread.submit(bool).result()

    def drain(self) -> None:
        """Wait until everything is written.

        Raises:
            OSError: as `check`.
        """
        self.settle()
        self.check()

    def _write(
        self, copied: T, arrival: torch.cuda.Event | None, write: Callable[[T], None]
    ) -> None:
        try:
            if self._error is None:
                if arrival is not None:
                    arrival.synchronize()
                write(copied)
        except BaseException as error:  # raised again in training's thread
            self._error = error
        finally:
            self._free.release()


def on_host(state: T) -> T:
    """Copy every tensor of nested dicts, lists and tuples to the host, without waiting for a GPU.

    The copies of a GPU's tensors are in pinned memory, which PyTorch reuses for the next state.
    """
    copied: T = _copy(state)
    return copied


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_copy, value))
    if not isinstance(value, Tensor):
        return value
    host = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda, requires_grad=False)
    return host.copy_(value.detach(), non_blocking=value.is_cuda)
