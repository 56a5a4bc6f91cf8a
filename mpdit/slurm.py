"""Slurm's commands: one function for each query, and one place that runs all of them.

A task has the id that squeue prints: ``JOB_INDEX`` in a job array, ``JOB`` alone. Every function
raises ConfigError when a command is not installed, when the controller or the database does not
answer, and when the command fails.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mpdit.errors import ConfigError
from mpdit.text import one_line

calls: Counter[str] = Counter()
"""Number of calls of each command by this process."""

PATIENCE_S = 40
"""Seconds until a command is killed; Slurm's own timeouts are 9 to 20 s."""
ASK_AGAIN_S = 2
"""Seconds between two attempts of a job to requeue itself."""
LOOK_BACK = "now-30days"
"""`find_jobs` ignores jobs that ended before this."""

WHICH_CLUSTER = "SLURM_CONF"
"""The environment variable that selects the cluster; others that could are refused or dropped."""

_SEPARATOR = "\x1f"  # in no name, reason or list of nodes
_NO_ACCOUNTING = "accounting storage is disabled"
_UNREACHABLE = "Unable to contact slurm controller"
_NO_ROOM = re.compile(r"SubmitJob|retrying|temporarily unavailable")
"""The names of all limits on the number of jobs (``AssocMaxSubmitJobLimit``), and what sbatch
prints before it waits, for up to two minutes, until the controller has room (``MaxJobCount``)."""
_UNHEARD = re.compile(
    "timed out|timeout|contact|connect|communicat|socket|zero bytes|unexpected message", re.I
)
_OVER = ("PENDING", "COMPLETING")
_UNENDED = ("PENDING", "RUNNING", "SUSPENDED", "REQUEUED", "RESIZING")

_without_accounting = False  # True after sacct has reported it; sacct is then not called again


class QueuedTask(NamedTuple):
    """A waiting or running task, with Slurm's own state and reason."""

    id: str
    name: str
    state: str
    reason: str
    """Why the task waits, '' when it does not."""
    nodes: str
    elapsed_s: int


class Ended(NamedTuple):
    """Slurm's record of a task that has ended; ``detail`` is its exit code or Slurm's reason."""

    state: str
    nodes: str
    detail: str = ""


class RefusedError(ConfigError):
    """Slurm answered, and did not accept the job."""


class NoRoomError(RefusedError):
    """Slurm accepts no more jobs for now, because a limit on their number is reached."""

    @property
    def limit(self) -> str:
        """Slurm's name of the limit."""
        named = re.search(r"\w*SubmitJob\w*", self.message)
        return named[0] if named else "MaxJobCount"


def is_available() -> bool:
    """Whether jobs can be submitted from this machine."""
    return shutil.which("sbatch") is not None


def environment() -> dict[str, str]:
    """This process's environment without the variables that change a command's output.

    These are set by an enclosing job or by the user: ``SLURM_*``, ``SBATCH_*``, ``SQUEUE_*`` and
    the like. `WHICH_CLUSTER` stays.
    """
    dropped = re.compile(r"(SLURM|SLURMD|SBATCH|SRUN|SQUEUE|SACCT|SCANCEL|SINFO)_")
    clean = {k: v for k, v in os.environ.items() if k == WHICH_CLUSTER or not dropped.match(k)}
    return {**clean, "SLURM_BITSTR_LEN": "0"}  # whole lists of array indices


def queue(names: Collection[str]) -> list[QueuedTask]:
    """The waiting and running tasks of the jobs with these names."""
    if not names:
        return []
    columns = ["%i", "%j", "%T", "%r", "%N", "%M"]
    rows = _rows(_squeue(f"--name={','.join(names)}", "--array", columns=columns))
    return [
        QueuedTask(task, name, state, "" if reason == "None" else reason, nodes, _seconds(elapsed))
        for task, name, state, reason, nodes, elapsed in rows
    ]


def is_running(job: str) -> bool:
    """Whether a job has an allocation; a completing job counts as ended."""
    try:
        states = _squeue(f"--jobs={job}", columns=["%T"]).split()
    except ConfigError as error:
        if "Invalid job id" in str(error):  # Slurm forgets a job some minutes after its end
            return False
        raise
    return any(state not in _OVER for state in states)


def accounting(job_ids: Collection[str]) -> dict[str, Ended] | None:
    """The ended tasks of these jobs by id; None where the cluster has no accounting."""
    if not job_ids:
        return {}
    answer = _sacct(
        *(f"--jobs={','.join(job_ids)}", "--allocations"),
        columns=("JobID", "State", "NodeList", "ExitCode"),
    )
    if answer is None:
        return None
    ended: dict[str, Ended] = {}
    for name, state, nodes, code in _rows(answer):
        if (word := state.partition(" ")[0]) not in _UNENDED:  # CANCELLED by 1000
            ended |= dict.fromkeys(_tasks(name), Ended(word, nodes, f"exit {code}"))
    return ended


def remembered(job_ids: Collection[str]) -> dict[str, Ended]:
    """The ended tasks of these jobs, for the minutes that the controller still knows them."""
    listed = f"--jobs={','.join(job_ids)}"
    columns = ["%i", "%T", "%N", "%r"]
    rows = _rows(_squeue(listed, "--states=all", "--array", columns=columns)) if job_ids else ()
    return {
        task: Ended(state, nodes, "" if reason == "None" else reason)
        for task, state, nodes, reason in rows
        if state not in (*_UNENDED, *_OVER)
    }


def find_jobs(names: Collection[str]) -> dict[str, str]:
    """Name → id of the jobs with these names that wait, run, or have ended recently."""
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
    """The largest number of tasks in a job array."""
    lines = (line.partition("=") for line in run("scontrol", "show", "config").splitlines())
    config = {name.strip(): value.strip() for name, _, value in lines}
    tasks = int(config["MaxArraySize"])
    if match := re.search(r"max_array_tasks=(\d+)", config["SchedulerParameters"]):
        tasks = min(tasks, int(match[1]))
    return max(1, tasks)


def check_one_cluster() -> None:
    """Raise ConfigError where the environment sends jobs to other clusters."""
    for variable in ("SBATCH_CLUSTERS", "SLURM_CLUSTERS"):
        if names := os.environ.get(variable):
            raise ConfigError(
                f"{variable}={names}: jobs of other clusters cannot be followed. Unset it and "
                "submit on that cluster's own login node"
            )


def has_nodes(partition: str | None) -> bool:
    """Whether any node of a partition is up; of any partition for None."""
    where = [] if partition is None else [f"--partition={partition}"]
    up = "--states=idle,mixed,allocated,completing,planned"
    return bool(run("sinfo", "--noheader", up, "--format=%D", *where).strip())


def rehearse(options: Sequence[str]) -> None:
    """Test sbatch's options without submitting: GPUs, memory, constraints and all others.

    Raises:
        NoRoomError: when a limit on the number of jobs kept Slurm from judging them.
        ConfigError: with sbatch's message when no job could ever run with them.
    """
    run("sbatch", "--test-only", *options, "--wrap=true")


def cancel(ids: Collection[str]) -> None:
    """Cancel jobs or single tasks; those that have ended are ignored."""
    for part in _parts(_grouped(ids), 100):  # a command line is limited to some hundred kilobytes
        run("scancel", "--quiet", *part)


def hold(ids: Collection[str]) -> None:
    """Hold waiting jobs or single tasks, so that their owner can release them."""
    for part in _parts(_grouped(ids), 100):
        run("scontrol", "uhold", *part)


def release(ids: Collection[str]) -> None:
    """Release held jobs or single tasks."""
    for part in _parts(_grouped(ids), 100):
        run("scontrol", "release", *part)


def requeue(job: str) -> None:
    """Requeue the job or the task that this process belongs to.

    It asks until Slurm answers. Until then nothing can end the job at its time limit either.

    Raises:
        RefusedError: when Slurm does not requeue it.
        ConfigError: when scontrol is not installed.
    """
    while True:
        try:
            run("scontrol", "requeue", job)
        except RefusedError as refused:
            if "pending execution" in refused.message:  # it did after all, without an answer
                return
            raise
        except ConfigError as silence:
            if shutil.which("scontrol") is None:
                raise
            print(f"{silence}; asking again in {ASK_AGAIN_S} s", flush=True)
            time.sleep(ASK_AGAIN_S)
        else:
            return


def _grouped(ids: Collection[str]) -> list[str]:
    """The ids, with the tasks of one array joined: ``7_[0,2]``."""
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
    return words


def submit(script: Path) -> tuple[str, list[str]]:
    """Submit a script; return the job's id, and the other lines that sbatch printed.

    Raises:
        NoRoomError: at once, where sbatch itself would wait for room.
        RefusedError: with sbatch's messages, when Slurm does not accept the job.
        ConfigError: when it is not known whether Slurm has accepted it.
    """
    calls["sbatch"] += 1
    process = subprocess.Popen(
        ("sbatch", str(script)),
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    patience = threading.Timer(PATIENCE_S, process.kill)
    patience.daemon = True
    patience.start()
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = ""
        for line in process.stderr:
            said += line
            if "retrying" in line:  # it was not accepted; sbatch sleeps a second now
                process.kill()
        answer = process.stdout.read()
    expired = not patience.is_alive()
    patience.cancel()
    if process.returncode == 0:
        if (job := re.search(r"job (\d+)", answer)) is None:
            raise ConfigError(f"sbatch printed no job id: {one_line(answer)!r}")
        return job[1], _messages("sbatch", said)
    if expired:
        raise _silent("sbatch")
    raise _failure("sbatch", said, process.returncode)


def run(*words: str) -> str:
    """Run a command and return its output.

    Raises:
        ConfigError: when it is not installed, does not end in time, or fails.
    """
    calls[words[0]] += 1
    try:
        done = subprocess.run(
            words,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE_S,
        )
    except FileNotFoundError:
        raise ConfigError(f"{words[0]} not found: Slurm's commands are not on the PATH") from None
    except subprocess.TimeoutExpired:
        raise _silent(words[0]) from None
    if done.returncode == 0:
        return done.stdout
    raise _failure(words[0], done.stderr, done.returncode)


def _silent(command: str) -> ConfigError:
    return ConfigError(f"Slurm does not answer: {command} timed out after {PATIENCE_S} s")


def _failure(command: str, stderr: str, code: int) -> ConfigError:
    """The error of a command that failed, with all its messages."""
    lines = _messages(command, stderr)
    said = "; ".join(lines) or f"exit status {code}"
    if _UNREACHABLE in said:
        return ConfigError(f"Slurm's controller does not answer ({command}: {said})")
    if _NO_ROOM.search(said):
        return NoRoomError(f"{command}: {said}")
    known = not _UNHEARD.search(lines[-1] if lines else said)
    return (RefusedError if known else ConfigError)(f"{command}: {said}")


def _messages(command: str, stderr: str) -> list[str]:
    """The lines that a command printed as errors: each once, in plain characters."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", stderr)
    lines = (re.sub(rf"^{command}: (error: |fatal: )?", "", line) for line in plain.splitlines())
    told = (one_line(line, 1000) for line in lines if not line.startswith("Try "))
    return list(dict.fromkeys(filter(None, told)))


def _squeue(*options: str, columns: Sequence[str]) -> str:
    return run("squeue", "--noheader", *options, f"--format={_SEPARATOR.join(columns)}")


def _sacct(*options: str, columns: Sequence[str]) -> str | None:
    """The output of sacct, None where the cluster has no accounting."""
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
    """Seconds in ``[D-][HH:]MM:SS``; 0 for INVALID, which follows a clock that was set back."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _tasks(allocation: str) -> list[str]:
    """The task ids in ``7_[0,2-4%8]``, sacct's name of tasks that never started."""
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
