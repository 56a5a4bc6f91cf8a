"""All that is asked of Slurm: one command a function, and all commands are run in one place.

A task is named as squeue names it: ``JOB_INDEX`` in a job array, ``JOB`` alone. Every function
raises ConfigError when Slurm cannot be asked: its commands are not here, the controller or the
database does not answer, or the answer is a refusal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from mpdit.errors import ConfigError

calls: Counter[str] = Counter()
"""How often each command has been run by this process."""

PATIENCE_S = 40
"""Commands themselves give up on a controller after 9 to 20 s."""
LOOK_BACK = "now-30days"
"""What ended before that is not looked for by its name."""

WHICH_CLUSTER = ("SLURM_CONF", "SLURM_CLUSTERS")
"""What says in the environment which cluster is meant."""

_SEPARATOR = "\x1f"  # in no name, reason or list of nodes
_NO_ACCOUNTING = "accounting storage is disabled"
_UNREACHABLE = "Unable to contact slurm controller"
_OVER = ("PENDING", "COMPLETING")
_UNENDED = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING")

_without_accounting = False  # once it is known, sacct is not asked again


class QueuedTask(NamedTuple):
    """A task that waits or runs, in Slurm's words."""

    id: str
    name: str
    state: str
    reason: str
    """Why it waits, '' when it does not."""
    nodes: str
    elapsed_s: int


class Ended(NamedTuple):
    """What accounting says of a task that is over."""

    state: str
    nodes: str


def is_available() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None


def environment() -> dict[str, str]:
    """This process's environment, less what would change what a command means or prints.

    That is what a surrounding job has set, and its user's preferences: ``SLURM_*``, ``SBATCH_*``,
    ``SQUEUE_*`` and the like. Which cluster is meant stays.
    """
    dropped = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SQUEUE|SACCT|SCANCEL|SINFO)_")
    clean = {k: v for k, v in os.environ.items() if k in WHICH_CLUSTER or not dropped.match(k)}
    return {**clean, "SLURM_BITSTR_LEN": "0"}  # whole lists of array indices


def queue(names: Collection[str]) -> list[QueuedTask]:
    """The tasks of all jobs so named that wait or run; of an array, each."""
    if not names:
        return []
    columns = ["%i", "%j", "%T", "%r", "%N", "%M"]
    rows = _rows(_squeue(f"--name={','.join(names)}", "--array", columns=columns))
    return [
        QueuedTask(task, name, state, "" if reason == "None" else reason, nodes, _seconds(elapsed))
        for task, name, state, reason, nodes, elapsed in rows
    ]


def is_running(job: str) -> bool:
    """Whether a job has an allocation; one that is being cleaned up has none any more."""
    try:
        states = _squeue(f"--jobs={job}", columns=["%T"]).split()
    except ConfigError as error:
        if "Invalid job id" in str(error):  # forgotten, some minutes after its end
            return False
        raise
    return any(state not in _OVER for state in states)


def accounting(job_ids: Collection[str]) -> dict[str, Ended] | None:
    """What has become of the tasks of these jobs that are over; None without accounting."""
    if not job_ids:
        return {}
    answer = _sacct(
        f"--jobs={','.join(job_ids)}", "--allocations", columns=("JobID", "State", "NodeList")
    )
    if answer is None:
        return None
    ended: dict[str, Ended] = {}
    for name, state, nodes in _rows(answer):
        if (word := state.partition(" ")[0]) not in _UNENDED:  # CANCELLED by 1000
            ended |= dict.fromkeys(_tasks(name), Ended(word, nodes))
    return ended


def find_jobs(names: Collection[str]) -> dict[str, str]:
    """Name → job id, of the jobs so named that wait, run, or have ended lately."""
    if not names:
        return {}
    listed = f"--name={','.join(names)}"
    found = dict(_rows(_squeue(listed, "--states=all", columns=["%j", "%F"])))
    if found.keys() >= set(names):
        return found
    answer = _sacct(
        listed, f"--starttime={LOOK_BACK}", "--allocations", columns=("JobName", "JobID")
    )
    ended = {name: task.partition("_")[0] for name, task in _rows(answer or "")}
    return ended | found


def largest_array() -> int:
    """So many tasks may be in one job array."""
    lines = (line.partition("=") for line in run("scontrol", "show", "config").splitlines())
    config = {name.strip(): value.strip() for name, _, value in lines}
    tasks = int(config["MaxArraySize"])
    if match := re.search(r"max_array_tasks=(\d+)", config["SchedulerParameters"]):
        tasks = min(tasks, int(match[1]))
    return max(1, tasks)


def has_nodes(partition: str | None) -> bool:
    """Whether any node of the partition, or of any, could take a job at some time: is not down."""
    where = [] if partition is None else [f"--partition={partition}"]
    up = "--states=idle,mixed,allocated,completing,planned"
    return bool(run("sinfo", "--noheader", up, "--format=%D", *where).strip())


def rehearse(options: Sequence[str]) -> None:
    """Let sbatch judge its options as a whole: GPUs, memory, constraints and all others.

    Raises:
        ConfigError: with its words, when no job could ever run with them.
    """
    run("sbatch", "--test-only", *options, "--wrap=true")


def cancel(ids: Collection[str]) -> None:
    """Cancel jobs or single tasks; those that are over already are passed over."""
    indices: dict[str, list[str]] = defaultdict(list)
    words = []
    for task in ids:
        job, _, index = task.partition("_")
        if index:
            indices[job].append(index)
        else:
            words.append(job)
    for job, listed in indices.items():
        words += [f"{job}_[{','.join(part)}]" for part in _parts(listed, 1000)]
    for part in _parts(words, 100):  # some hundred kilobytes, at most: a command line has its limit
        run("scancel", "--quiet", *part)


def run(*words: str) -> str:
    """What a command prints.

    Raises:
        ConfigError: when it is not here, does not come to an end, or fails.
    """
    calls[words[0]] += 1
    try:
        done = subprocess.run(
            words,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {words[0]} here: Slurm's commands are not on the PATH"
        ) from None
    except subprocess.TimeoutExpired:
        raise ConfigError(f"Slurm does not answer: {words[0]} has waited {PATIENCE_S} s") from None
    if done.returncode == 0:
        return done.stdout
    lines = [line for line in done.stderr.splitlines() if line and not line.startswith("Try ")]
    said = re.sub(r"^\w+: (error: )?", "", lines[-1]) if lines else f"exit status {done.returncode}"
    if any(_UNREACHABLE in line for line in lines):
        raise ConfigError(f"Slurm's controller does not answer ({words[0]}: {said})")
    raise ConfigError(f"{words[0]}: {said}")


def _squeue(*options: str, columns: Sequence[str]) -> str:
    return run("squeue", "--noheader", *options, f"--format={_SEPARATOR.join(columns)}")


def _sacct(*options: str, columns: Sequence[str]) -> str | None:
    """None where there is no accounting."""
    global _without_accounting
    if _without_accounting:
        return None
    shape = ("--noheader", "--parsable2", f"--delimiter={_SEPARATOR}")
    try:
        return run("sacct", *shape, "--allusers", *options, f"--format={','.join(columns)}")
    except ConfigError as error:
        if _NO_ACCOUNTING not in str(error):
            raise
        _without_accounting = True
        return None


def _rows(answer: str) -> Iterator[list[str]]:
    return (line.split(_SEPARATOR) for line in answer.splitlines())


def _seconds(text: str) -> int:
    """``[D-][HH:]MM:SS``; 0 for INVALID, which a clock that was set back makes."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _tasks(allocation: str) -> list[str]:
    """``7_[0,2-4%8]``, as tasks are called that never started, → ``7_0``, ``7_2``, …"""
    match = re.fullmatch(r"(\d+)_\[([\d,-]+)(?:%\d+)?\]", allocation)
    if match is None:
        return [allocation]
    tasks = []
    for part in match[2].split(","):
        first, _, last = part.partition("-")
        tasks += [f"{match[1]}_{index}" for index in range(int(first), int(last or first) + 1)]
    return tasks


def _parts(words: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (words[start : start + size] for start in range(0, len(words), size))
