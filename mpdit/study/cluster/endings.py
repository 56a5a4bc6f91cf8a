"""Classify why a run failed, from the state that Slurm gives and from the run's log."""

from __future__ import annotations

import re
from typing import NamedTuple


class Cause(NamedTuple):
    """``kind`` is ``timed out``, ``deadline``, ``out of memory``, ``node failed``, ``preempted``,
    ``cancelled``, ``failed`` or '' (unknown); ``line`` is the line of the log that shows the cause,
    or the last one."""

    kind: str
    line: str


_WORDS = {
    "TIMEOUT": "timed out",
    "DEADLINE": "deadline",
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
    "node failed": rf"{_CANCELLED}DUE TO NODE FAILURE|the node could not open the job's files",
    "preempted": rf"{_CANCELLED}DUE TO PREEMPTION",
    "deadline": rf"{_CANCELLED}DUE TO DEADLINE",
    "failed": r"srun: Terminating (?:StepId|job step)",
    "cancelled": _CANCELLED,
}
"""The first match decides: Slurm also cancels a job that used too much memory, and the step of a
process that died (srun reports that it terminates the step)."""
_PATTERNS = {
    kind: re.compile(rf"^{kind}(?: on \S+)?(?::|$)|{line}", re.I) for kind, line in _LINES.items()
}
"""A stored error (`status.explain_end`) begins with its kind."""
_NOT_STARTED = ("exit 0:53", "JobLaunchFailure", "launch failed requeued held")
"""Slurm's words for a node that could not open the job's files, such as without their folder."""

_STATUS = re.compile(r"srun: error: .*: Exited with exit code \d+")


def failed_nodes(error: str) -> str:
    """Slurm's list of the nodes in a stored error, '' where it names none."""
    named = re.match(r"node failed on (\S+?)(?::|$)", error)
    return named[1] if named else ""


def classify(word: str, log: str, detail: str = "") -> Cause:
    """The cause of a run's end.

    Args:
        word: the final state that Slurm gives, '' where it gives none. The log may refine
            ``FAILED``, except to ``cancelled``.
        log: the last lines of the job's or the run's log.
        detail: the exit code or the reason that Slurm gives.
    """
    if detail in _NOT_STARTED:
        return Cause("node failed", "the node could not open the job's files")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    own = [line for line in lines if not _STATUS.fullmatch(line)]  # these tell more than srun's
    last = (own or lines or [""])[-1]
    known = _WORDS.get(word, "")
    for kind, pattern in _PATTERNS.items():
        found = [line for line in lines if pattern.search(line)]
        if found and (known in ("", kind) or (known == "failed" and kind != "cancelled")):
            return Cause(kind, found[-1])
    return Cause(known, last)
