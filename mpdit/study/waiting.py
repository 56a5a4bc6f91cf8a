"""The runs of a study that Slurm has no room for yet: ``.waiting.json`` in the study's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from mpdit.disk.files import warn_once, write_atomic

AGAIN = "now+10minutes"
"""When the small job that continues a study starts again, if it depends on no other job."""


@dataclass(frozen=True)
class Waiting:
    """The names of the runs that wait, and how they and retries are submitted.

    Attributes:
        limit: Slurm's name of the limit that it has reached.
        command, max_parallel, live_code: as in `submission.Execution`.
        small: the name of the small job that continues the study (`notice`); it may have ended.
    """

    runs: frozenset[str] = frozenset()
    limit: str = ""
    command: tuple[str, ...] = ()
    max_parallel: int | None = None
    live_code: bool = False
    small: str = ""

    def write(self, study: Path) -> None:
        """Replace the study's file. Call under the study's lock."""
        row = {**asdict(self), "runs": sorted(self.runs)}
        write_atomic(_file(study), json.dumps(row))


def read_waiting(study: Path) -> Waiting:
    """Read a study's waiting runs; there are none before its first submission to Slurm."""
    try:
        return _WAITING.validate_json(_file(study).read_bytes())
    except FileNotFoundError:
        return Waiting()
    except PermissionError as error:  # another user's
        warn_once(f"{_file(study)} cannot be read ({error.strerror}); no run counts as waiting")
        return Waiting()
    except ValidationError:
        warn_once(f"{_file(study)} is damaged: no run counts as waiting. Submit again.")
        return Waiting()


def stop_waiting(study: Path, runs: Collection[str]) -> frozenset[str]:
    """Remove runs from the waiting ones; return those removed. Call under the study's lock."""
    waiting = read_waiting(study)
    dropped = waiting.runs.intersection(runs)
    if dropped:
        replace(waiting, runs=waiting.runs - dropped).write(study)
    return dropped


def is_mine(study: Path) -> bool:
    """Whether this user submitted the waiting runs; nobody else can continue them."""
    try:
        return _file(study).stat().st_uid == os.getuid()
    except FileNotFoundError:
        return False


_WAITING = TypeAdapter(Waiting)


def _file(study: Path) -> Path:
    return study / ".waiting.json"
