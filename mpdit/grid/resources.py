"""The resources of a run on a cluster: the ``slurm:`` mapping of a study or of a variant."""

from __future__ import annotations

import re
import shlex
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    StringConstraints,
    ValidationError,
)

from mpdit.errors import nearest
from mpdit.grid.sbatch import check_option
from mpdit.grid.settings import Setting
from mpdit.peaks import PEAKS
from mpdit.section import ADDED, Positive

NO_LIMIT = 365 * 24 * 60
"""Minutes of an unlimited job; submitit always passes a limit."""

_TIME = re.compile(r"(?:(\d{1,4})-)?(\d{1,6})(?::(\d{1,2}))?(?::(\d{1,2}))?")
MEMORY_SHARES = ("mem-per-cpu", "mem-per-gpu")
"""Options of sbatch in place of ``memory``."""
TAKES = "takes"
"""The key of a field's JSON schema that describes its values in words."""
_GPUS = re.compile(r"(?:([\w.-]{1,60}):)?(\d{1,6})")


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
        raise ValueError("a time limit must be more than zero ('infinite' is none)")
    return -(-total // 60)


def _time(value: object) -> int:
    return NO_LIMIT if str(value).lower() in ("infinite", "unlimited") else parse_minutes(value)


def _memory(value: object) -> object:
    """Units in capitals; 0 is all of a node's memory."""
    if type(value) is int and value == 0:
        return "0"
    return value.upper() if isinstance(value, str) else value


def _line(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"should be text in one line, not {text!r}")
    return text


def _command(text: str) -> str:
    if not shlex.split(text):  # which raises, too, where a quote is not closed
        raise ValueError("should be a command")
    return text


def _lines(value: object) -> tuple[str, ...]:
    given = value.splitlines() if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(line, str) for line in given):
        raise ValueError(f"should be a list of shell commands, not {value!r:.80}")
    if any(not c.isprintable() and c not in "\n\t" for c in "".join(given)):
        raise ValueError("has a character that cannot be printed")
    return tuple(given)


def _known_device(name: str) -> str:
    if name not in PEAKS:
        raise ValueError(
            f"the peak speed of {name!r} is not known.{nearest(name, PEAKS)} Known: "
            f"{', '.join(PEAKS)}"
        )
    return name


def _takes(values: str) -> Any:
    """Describe the accepted values for docs/catalogue.md, if a field's type does not tell all."""
    return Field(json_schema_extra={TAKES: values})


Word = Annotated[str, AfterValidator(_line)]


class Resources(BaseModel):
    """One allocation's resources; None leaves it to the cluster.

    ``time`` is in minutes; ``memory``, ``gpus`` and ``cpus`` are each node's.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    partition: Word | None = None
    """The partition that the jobs are submitted to."""
    account: Word | None = None
    """The account that is charged."""
    qos: Word | None = None
    """The quality of service."""
    constraint: Word | None = None
    """Features that a node must have, as sbatch's --constraint."""
    time: Annotated[int, BeforeValidator(_time), _takes("minutes, or text")] | None = None
    """Time limit: minutes, ``12:00:00``, ``1-06:00:00`` or ``infinite``; None: the partition's
    default."""
    memory: (
        Annotated[
            str,
            StringConstraints(pattern=r"^([0-9]{1,9}[KMGT]B?|0)$"),
            BeforeValidator(_memory),
            _takes("text, or `0`"),
        ]
        | None
    ) = None
    """Memory of each node: ``16G``; ``0`` is all of it."""
    gpus: Annotated[int, Field(ge=0), _takes("integer ≥ 0, or text")] | None = None
    """GPUs of each node: ``2``, or with their kind ``a100:2``."""
    gpu_type: Annotated[str, StringConstraints(pattern=r"^[\w.-]{1,60}$")] | None = None
    """The cluster's name for a kind of GPU."""
    nodes: Positive | None = None
    """Nodes of a job."""
    cpus: Positive | None = None
    """CPU cores of each node."""
    max_parallel: Positive | None = None
    """Most runs that are executed at once; None: no limit."""
    runs_per_job: Positive = 1
    """Small runs packed side by side into one allocation."""
    retry: Annotated[Annotated[int, Field(ge=0)] | None, ADDED] = None
    """How often a run is retried automatically after it was out of memory or time, or its node
    failed; None: never."""
    device: Annotated[str, AfterValidator(_known_device)] | None = None
    """The GPU that `plan` estimates the cost for, such as ``H100``; it does not affect the job."""
    utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """The fraction of the GPU's peak that the estimate assumes."""
    setup: Annotated[
        tuple[str, ...], BeforeValidator(_lines), _takes("list of text, or text"), ADDED
    ] = ()
    """Shell commands that the job executes before it starts Python."""
    python: Annotated[Annotated[Word, AfterValidator(_command)] | None, ADDED] = None
    """The command that starts Python in the job; None: the Python that submits."""
    extra: dict[str, Any] = {}
    """Any other option of sbatch, by its long name: ``true`` for an option without a value,
    ``false`` for one that is not given."""

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def origins(self) -> dict[str, str]:
        """Where each value was written, such as ``grid.yaml:7``; an option's key is
        ``extra.NAME``."""
        return self._origins

    def with_value(self, key: str, value: Any, origin: str) -> Self:
        """These resources with another value, or another option for a key ``extra.NAME``."""
        name, _, option = key.partition(".")
        made = self.model_copy(update={name: self.extra | {option: value} if option else value})
        made._origins = self._origins | {key: origin}
        return made

    def blame(self, key: str) -> str:
        """``grid.yaml:7: slurm.time``, as the beginning of a message about this value."""
        origin = self._origins.get(key)
        return f"{origin}: slurm.{key}" if origin else f"slurm.{key}"

    def rows(self) -> list[tuple[str, str, str]]:
        """(key, value, origin) of each value that was given, in the order of the fields."""
        fields, found = list(type(self).model_fields), []
        for key in sorted(self._origins, key=lambda key: fields.index(key.partition(".")[0])):
            name, _, option = key.partition(".")
            value = self.extra[option] if option else getattr(self, name)
            text = "; ".join(value) if isinstance(value, tuple) else str(value)
            found.append(
                (key, text.lower() if value in (True, False, None) else text, self._origins[key])
            )
        return found


NOTHING = Resources()
"""Everything is left to the cluster."""


def read_resources(inherited: Resources, *nodes: Setting) -> Resources:
    """``inherited``, overridden by the mapping at each node.

    Raises:
        ConfigError: with the line of the first key that is wrong.
    """
    both = overlay(inherited, *nodes)
    packed = both.runs_per_job
    for node in nodes[-1:]:
        if packed > 1 and (both.nodes or 1) > 1:
            raise node.error(f"runs_per_job: {packed} runs share one node, not {both.nodes}")
        if both.gpus is None and any("gpu_type" in one.value for one in nodes):
            raise node.error("gpu_type needs gpus, their number")
        if 1 < packed < (both.gpus or 0):
            raise node.error(f"runs_per_job: {packed} runs leave {both.gpus} GPUs partly idle")
    return both


def overlay(inherited: Resources, *nodes: Setting) -> Resources:
    """As `read_resources`, without a check of the values against one another."""
    for node in nodes:
        values, options = _read(node)
        if options.keys() & set(MEMORY_SHARES) or values.get("memory"):  # sbatch takes one of them
            given = [option for option in MEMORY_SHARES if option in inherited.extra]
            options = dict.fromkeys(given, False) | options
            values = {"memory": None} | values if inherited.memory else values
        for key, value in values.items():
            inherited = inherited.with_value(key, value, _origin(node, key))
        for option, value in options.items():
            origin = _origin(node, "extra", option)
            inherited = inherited.with_value(f"extra.{option}", value, origin)
    return inherited


def _origin(node: Setting, *keys: str) -> str:
    lines = node.source.lines
    line = lines.get((*node.where, *keys)) or lines.get((*node.where, keys[0])) or node.line
    return f"{node.source.name}:{line}" if line else node.source.name


def _read(node: Setting) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of a mapping, and the options under its ``extra``.

    Raises:
        ConfigError: as `read_resources`.
    """
    if not isinstance(node.value, dict):
        raise node.error(f"should be a mapping of resources, not {node.value!r}")
    given = dict(node.value)
    if isinstance(given.get("gpus"), str) and (match := _GPUS.fullmatch(given["gpus"])):
        if match[1] and "gpu_type" in given:
            raise node.child("gpu_type").error(f"gpus already names a kind: {given['gpus']}")
        given |= {"gpus": int(match[2])} | ({"gpu_type": match[1]} if match[1] else {})
    try:
        own = Resources.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        raise _inside(node, key).error(_explain(first, key)) from None
    options: dict[str, Any] = {}
    for name, value in own.extra.items():
        try:
            option, checked = check_option(name, value)
        except ValueError as error:
            raise _inside(node, "extra", name).error(str(error)) from None
        if option in options:
            raise _inside(node, "extra", name).error(f"{option} is listed twice")
        options[option] = checked
    values = {name: getattr(own, name) for name in Resources.model_fields if name in given}
    return {name: value for name, value in values.items() if name != "extra"}, options


def _inside(node: Setting, *keys: str) -> Setting:
    return node._replace(where=(*node.where, *keys))


def _explain(first: Any, key: str) -> str:
    given = first["input"]
    match first["type"]:
        case "extra_forbidden":
            return (
                f"unknown resource.{nearest(key, Resources.model_fields)}"
                " Other options of sbatch go under 'extra'"
            )
        case "value_error":
            return str(first["ctx"]["error"])
        case "string_type" if isinstance(given, int | float) and key != "memory":
            return f"should be text: put {given} in quotes"
        case "dict_type":
            return f"should be a mapping of sbatch's options to values, not {given!r:.80}"
        case _ if key == "memory":
            return f"should be text like '16G', not {given!r}"
        case _ if key == "gpus":
            return f"should be a number of GPUs, or text like 'a100:2', not {given!r:.80}"
        case _:
            wanted = first["msg"].removeprefix("Input should be ")
            return f"should be {wanted}, not {given!r}"
