"""The user's defaults for every study on this machine: a file of resources, and ``SBATCH_*``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mpdit.disk.yamlfile import YamlText, read
from mpdit.grid.resources import NOTHING, Resources, overlay
from mpdit.grid.settings import Setting

_RESOURCES = {
    **{name.upper(): name for name in ("account", "partition", "qos", "constraint")},
    "TIMELIMIT": "time",
    "MEM_PER_NODE": "memory",
    "GPUS_PER_NODE": "gpus",
}
_SWITCHES = ("OVERCOMMIT", "SPREAD_JOB", "USE_MIN_NODES")
"""Options without a value."""
_MAYBE_VALUED = ("EXCLUSIVE", "GET_USER_ENV", "NO_KILL")
_OPTIONS = {
    **{
        name: name.lower().replace("_", "-")
        for name in (
            *("ACCTG_FREQ", "BATCH", "CONTAINER", "CORE_SPEC", "CPUS_PER_GPU", "DELAY_BOOT"),
            *("DISTRIBUTION", "EXPORT", "GPU_BIND", "GPU_FREQ", "GRES", "GRES_FLAGS", "HINT"),
            *("MEM_PER_CPU", "MEM_PER_GPU", "NETWORK", "POWER", "PROFILE", "RESERVATION"),
            *("THREAD_SPEC", "THREADS_PER_CORE", "WAIT_ALL_NODES", "WCKEY"),
            *(*_SWITCHES, *_MAYBE_VALUED),
        )
    },
    "BURST_BUFFER": "bb",
    "CPU_FREQ_REQ": "cpu-freq",
    "REQ_SWITCH": "switches",
}
_UNUSED = (
    *("ARRAY_INX", "ERROR", "INPUT", "JOB_NAME", "OPEN_MODE", "OUTPUT", "SIGNAL", "WAIT"),
    *("NO_REQUEUE", "REQUEUE", "GPUS", "GPUS_PER_SOCKET", "GPUS_PER_TASK", "MEM_BIND"),
)
"""Options that submission sets itself; Slurm sets ``SBATCH_MEM_BIND`` in every job."""
_GPU = re.compile(r"(?:gres[:/])?gpu(?::([\w.-]+?))??(?::(\d+))?")


def user_file(environment: Mapping[str, str] = os.environ) -> Path:
    """The file of the user's own resources: ``~/.config/mpdit/slurm.yaml``."""
    home = environment.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return Path(home) / "mpdit" / "slurm.yaml"


def site_resources(environment: Mapping[str, str] = os.environ) -> Resources:
    """The resources of the user's file, overridden by those of ``SBATCH_*``.

    Raises:
        ConfigError: for the first value that is wrong, with its file and line or its variable.
    """
    nodes = []
    if (file := user_file(environment)).exists():
        source = read(file)[1]
        nodes.append(Setting(source.tree, source, ()))
    for variable, values in _from_environment(environment):
        nodes.append(Setting(values, YamlText(variable, values, {(): 0}), ()))
    return overlay(NOTHING, *nodes)


def unused_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The variables for sbatch that submission ignores, because it sets their options itself."""
    return [name for name in (f"SBATCH_{option}" for option in _UNUSED) if name in environment]


def used_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables for sbatch that `site_resources` reads. A job gets them, as it would from plain
    sbatch, so that they apply to jobs that it submits."""
    names = (f"SBATCH_{option}" for option in (*_RESOURCES, *_OPTIONS, "WAIT4SWITCH"))
    return {name: environment[name] for name in names if name in environment}


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each variable with the resources that it stands for."""
    for name, key in _RESOURCES.items():
        if value := environment.get(variable := f"SBATCH_{name}"):
            yield variable, {key: f"{value}M" if key == "memory" and value.isdigit() else value}
    for name, option in _OPTIONS.items():
        value = environment.get(variable := f"SBATCH_{name}")
        if value is None:
            continue
        if name in _SWITCHES:
            if value in ("", "yes") or value.strip("0").isdigit():
                yield variable, {"extra": {option: True}}
        elif name == "GRES":
            yield variable, _gres(value)
        elif value:
            wait = environment.get("SBATCH_WAIT4SWITCH") if name == "REQ_SWITCH" else None
            yield variable, {"extra": {option: f"{value}@{wait}" if wait else value}}
        elif name in _MAYBE_VALUED:
            yield variable, {"extra": {option: True}}


def _gres(text: str) -> dict[str, Any]:
    """``gpu:a100:2,shard:1`` → the GPUs, and the rest of the list."""
    found: dict[str, Any] = {}
    others = []
    for part in filter(None, text.split(",")):
        if match := _GPU.fullmatch(part):
            found |= {"gpus": int(match[2] or 1)} | ({"gpu_type": match[1]} if match[1] else {})
        else:
            others.append(part)
    return found | ({"extra": {"gres": ",".join(others)}} if others else {})
