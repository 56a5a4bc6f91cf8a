"""The options of sbatch that a grid may set under ``extra``, and why it may not set the others."""

from __future__ import annotations

import re
from typing import Any

from mpdit.errors import nearest

_RESOURCES = {
    **{name: name for name in ("partition", "account", "qos", "constraint", "time", "nodes")},
    **{f"gpus{by}": "gpus" for by in ("", "-per-node", "-per-task", "-per-socket")},
    "mem": "memory",
    "cpus-per-task": "cpus",
}
"""Options that have their own key under ``slurm:``."""

_REQUEUE = "jobs are always requeued, and their runs resume"
_TASKS = "the number of processes follows from gpus, nodes and runs_per_job"
_ANSWER = "it would change what sbatch does or prints, which submission relies on"
_CLUSTERS = "jobs of other clusters cannot be followed; submit on that cluster's own login node"
_REASONS = {
    "array": "submission makes the arrays; limit the runs at once by slurm.max_parallel",
    **dict.fromkeys(("output", "error", "open-mode"), "submission sets it, so that logs are found"),
    "job-name": "submission sets it, so that jobs are found by their names",
    "signal": "submission sets it, so that runs keep their state before the time limit",
    "requeue": _REQUEUE,
    "no-requeue": _REQUEUE,
    **dict.fromkeys(("ntasks", "ntasks-per-node", "ntasks-per-gpu"), _TASKS),
    "chdir": "runs start in the folder of the submission, where relative paths lead",
    "export-file": "write the exports under slurm.setup",
    **dict.fromkeys(("uid", "gid"), "only the submitter's own jobs can be followed"),
    **dict.fromkeys(("clusters", "cluster-constraint"), _CLUSTERS),
    **dict.fromkeys(("wrap", "parsable", "quiet", "wait", "test-only"), _ANSWER),
    **dict.fromkeys(("help", "usage", "version"), _ANSWER),
}

OF_SIZE = frozenset(
    (
        *("gres", "gres-flags", "gpu-bind", "gpu-freq", "exclusive", "licenses", "bb", "bbf"),
        *("cpus-per-gpu", "mem-per-cpu", "mem-per-gpu", "mem-bind", "mincpus", "tmp", "contiguous"),
        *("cores-per-socket", "sockets-per-node", "threads-per-core", "extra-node-info"),
        *("ntasks-per-core", "ntasks-per-socket", "core-spec", "thread-spec", "cpu-freq"),
        *("tres-per-task", "tres-bind", "switches", "distribution", "nodelist", "nodefile"),
        *("begin", "deadline", "dependency", "hold", "time-min", "mail-type", "mail-user"),
    )
)
"""Options for the jobs of runs only, not for the study's small job."""

_GPU = re.compile(r"(^|,)(gres[:/])?gpu\b")


def check_option(name: str, value: Any) -> tuple[str, str | int | float | bool]:
    """Check one entry of ``extra``: sbatch's long option, and its value (True for no value).

    Raises:
        ValueError: with the reason why it cannot be set.
    """
    option = name.replace("_", "-")
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]+", option):
        raise ValueError("write the option of sbatch by its long name, without dashes before it")
    if option in _RESOURCES:
        raise ValueError(f"set it by slurm.{_RESOURCES[option]}, not under 'extra'")
    if option in _REASONS:
        raise ValueError(f"cannot be set: {_REASONS[option]}")
    for known in (*_RESOURCES, *_REASONS):  # which sbatch would take it for
        if known.startswith(option) and option != "export":
            raise ValueError(f"write the option in full.{nearest(option, [known])}")
    if option in ("gres", "tres-per-task") and _GPU.search(str(value)):
        raise ValueError("set GPUs by slurm.gpus and slurm.gpu_type, not under 'extra'")
    if isinstance(value, list | dict):
        raise ValueError("sbatch takes an option once: write its values as one text, with commas")
    if value is None or not (text := str(value)) or not text.isprintable():
        raise ValueError(f"should be a value in one line, or true for none, not {value!r}")
    return option, value
