"""What a run asks of a cluster: the ``slurm:`` mapping of a study or of one of its variants."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from mpdit.errors import nearest
from mpdit.grid.settings import Setting
from mpdit.peaks import PEAKS
from mpdit.section import Positive

_TIME = re.compile(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?")


def parse_minutes(value: object) -> int:
    """Slurm's spellings of a time limit → whole minutes, rounded up.

    ``90``, ``MM:SS``, ``HH:MM:SS``, ``D-HH``, ``D-HH:MM``, ``D-HH:MM:SS``.

    Raises:
        ValueError: for anything else, and for no time at all.
    """
    match = _TIME.fullmatch(str(value)) if isinstance(value, int | str) else None
    if match is None or isinstance(value, bool):
        raise ValueError("a time limit is minutes, or text like '12:00:00' or '1-06:00:00'")
    days, *fields = match.groups()
    numbers = [int(field) for field in fields if field is not None]
    if days is not None:
        hours, minutes, seconds = (*numbers, 0, 0)[:3]
    elif len(numbers) == 3:
        hours, minutes, seconds = numbers
    else:
        hours, (minutes, seconds) = 0, (*numbers, 0)[:2]
    total = (int(days or 0) * 24 + hours) * 3600 + minutes * 60 + seconds
    if total == 0:
        raise ValueError("a time limit must be more than zero")
    return -(-total // 60)


Word = Annotated[str, StringConstraints(pattern=r"^[\w.,&|*()\[\]:=%@+-]{1,200}$")]
Option = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,60}$")]


def _known_device(name: str) -> str:
    if name not in PEAKS:
        raise ValueError(
            f"no peak is known of {name!r}.{nearest(name, PEAKS)} Known: {', '.join(PEAKS)}"
        )
    return name


_OURS = {
    **{name: name for name in ("partition", "account", "qos", "constraint", "time", "nodes")},
    "mem": "memory",
    "gpus": "gpus",
    "gpus-per-node": "gpus",
    "gpus-per-task": "gpus",
    "cpus-per-task": "cpus",
}
_FIXED = (
    *("array", "signal", "output", "error", "job-name", "requeue", "wrap"),
    *("ntasks", "ntasks-per-node", "ntasks-per-gpu"),
)


def _no_option_of_ours(extra: dict[str, Any]) -> dict[str, Any]:
    for name, value in extra.items():
        option = name.replace("_", "-")
        if option == "gres" and str(value).startswith("gpu"):
            raise ValueError("set GPUs by slurm.gpus and slurm.gpu_type, not under 'extra'")
        if option in _OURS:
            raise ValueError(f"set {option} by slurm.{_OURS[option]}, not under 'extra'")
        if option in _FIXED:
            raise ValueError(f"{option} cannot be set: submission sets it itself")
    return extra


class Resources(BaseModel):
    """One allocation's resources; None leaves it to the cluster.

    ``time`` is in minutes; ``memory``, ``gpus`` and ``cpus`` are each node's.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    partition: Word | None = None
    account: Word | None = None
    qos: Word | None = None
    constraint: Word | None = None
    time: Annotated[int, BeforeValidator(parse_minutes)] | None = None
    memory: Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}[KMGT]B?$")] | None = None
    gpus: Annotated[int, Field(ge=0)] | None = None
    gpu_type: Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,60}$")] | None = None
    """The cluster's name for a kind of them."""
    nodes: Positive | None = None
    cpus: Positive | None = None
    max_parallel: Positive | None = None
    """Runs that are executed at once."""
    runs_per_job: Positive = 1
    """Small runs packed side by side into one allocation."""
    device: Annotated[str, AfterValidator(_known_device)] | None = None
    """The GPU that the estimate before submitting is for; asks nothing of the cluster."""
    utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """The share of its peak that the estimate reckons with."""
    extra: Annotated[
        dict[Option, Word | int | float | bool], AfterValidator(_no_option_of_ours)
    ] = {}
    """Any other option of sbatch, by its long name."""


def read_resources(node: Setting, inherited: Resources) -> Resources:
    """``inherited``, with what the mapping at ``node`` says instead.

    Raises:
        ConfigError: with the line of the first key that is wrong.
    """
    if not isinstance(node.value, dict):
        raise node.error(f"should be a mapping of resources, not {node.value!r}")
    try:
        own = Resources.model_validate(node.value)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        inside = node._replace(where=(*node.where, key))
        raise inside.error(_explain(first, key)) from None
    changes = {name: getattr(own, name) for name in own.model_fields_set}
    changes["extra"] = inherited.extra | own.extra
    both = inherited.model_copy(update=changes)
    packed = both.runs_per_job
    if packed > 1 and (both.nodes or 1) > 1:
        raise node.error(f"runs_per_job: {packed} runs share one node, not {both.nodes}")
    if both.gpu_type and both.gpus is None:
        raise node.error("gpu_type needs gpus: how many")
    if 1 < packed < (both.gpus or 0):
        raise node.error(f"runs_per_job: {packed} runs leave {both.gpus} GPUs partly idle")
    return both


def _explain(first: Any, key: str) -> str:
    match first["type"]:
        case "extra_forbidden":
            return (
                f"unknown resource.{nearest(key, Resources.model_fields)}"
                " Other options of sbatch go under 'extra'"
            )
        case "value_error":
            return str(first["ctx"]["error"])
        case _ if key == "memory":
            return f"should be text like '16G', not {first['input']!r}"
        case _:
            wanted = first["msg"].removeprefix("Input should be ")
            return f"should be {wanted}, not {first['input']!r}"
