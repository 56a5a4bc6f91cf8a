"""Why a run came to no good end, from Slurm's word for it and from what its log says."""

from __future__ import annotations

import re
from typing import NamedTuple


class Cause(NamedTuple):
    """``kind`` is ``timed out``, ``out of memory``, ``node failed``, ``preempted``, ``cancelled``,
    ``failed``, or '' when nothing says so; ``line`` the line of the log that does, or its last."""

    kind: str
    line: str


_WORDS = {
    "TIMEOUT": "timed out",
    "DEADLINE": "timed out",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failed",
    "BOOT_FAIL": "node failed",
    "CANCELLED": "cancelled",
    "REVOKED": "cancelled",
    "PREEMPTED": "preempted",
    "FAILED": "failed",
}
_CANCELLED = r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+ "
_LINES = {
    "out of memory": r"out[- _]of[- _]?memory|memory limit|oom[-_ ]kill|MemoryError|SIGKILL",
    "timed out": rf"{_CANCELLED}DUE TO TIME LIMIT",
    "node failed": rf"{_CANCELLED}DUE TO NODE FAILURE",
    "preempted": rf"{_CANCELLED}DUE TO PREEMPTION",
    "failed": r"srun: Terminating (?:StepId|job step)",
    "cancelled": _CANCELLED,
}
"""The first of these that is found decides: what used too much, and the step of a process that died
(srun says that it terminates it), are cancelled, too."""
_PATTERNS = {kind: re.compile(rf"^{kind}(?::|$)|{line}", re.I) for kind, line in _LINES.items()}
"""An error that was kept (`status.explain_end`) begins with its kind."""


def classify(word: str, log: str) -> Cause:
    """The cause of an end.

    Args:
        word: the state in which Slurm says that it ended; '' where it says nothing. ``FAILED`` may
            be refined by the log, save to ``cancelled``.
        log: the end of what the job or the run said, the newest last.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    known = _WORDS.get(word, "")
    for kind, pattern in _PATTERNS.items():
        found = [line for line in lines if pattern.search(line)]
        if found and (known in ("", kind) or (known == "failed" and kind != "cancelled")):
            return Cause(kind, found[-1])
    return Cause(known, last)
