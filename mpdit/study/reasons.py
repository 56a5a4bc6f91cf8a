"""Why a run came to no good end, from Slurm's word for it and from what its log says."""

from __future__ import annotations

import re

_WORDS = {
    "TIMEOUT": "timed out",
    "DEADLINE": "timed out",
    "OUT_OF_MEMORY": "out of memory",
    "NODE_FAIL": "node failed",
    "BOOT_FAIL": "node failed",
    "CANCELLED": "cancelled",
    "PREEMPTED": "preempted",
    "REVOKED": "cancelled",
}
_CANCELLED = re.compile(r"\*\*\* (?:JOB|STEP) \S+ ON \S+ CANCELLED AT \S+(?: DUE TO ([A-Z ]+))?")
_DUE_TO = {
    "TIME LIMIT": "timed out",
    "NODE FAILURE": "node failed",
    "PREEMPTION": "preempted",
    "JOB REQUEUE": "preempted",
}
_MEMORY = re.compile(
    r"out of memory|out-of-memory|oom[-_ ]kill|OutOfMemory|MemoryError|SIGKILL", re.IGNORECASE
)
_TIME = re.compile(r"timed out|time limit", re.IGNORECASE)


def classify(word: str, log: str) -> str:
    """``timed out``, ``out of memory``, ``node failed``, ``preempted``, ``cancelled``, ``failed``.

    Args:
        word: the state in which Slurm says that it ended; '' where it says nothing.
        log: the end of what the job or the run said; slurmstepd's last words are the newest.

    Returns:
        '' when neither says anything.
    """
    first = word.split()[0] if word else ""  # of "CANCELLED by 1000"
    if first in _WORDS:
        return _WORDS[first]
    ended = _CANCELLED.findall(log)
    if ended:
        return next(
            (kind for due, kind in _DUE_TO.items() if ended[-1].startswith(due)), "cancelled"
        )
    if _MEMORY.search(log):
        return "out of memory"
    if _TIME.search(log):
        return "timed out"
    return "failed" if first == "FAILED" else ""
