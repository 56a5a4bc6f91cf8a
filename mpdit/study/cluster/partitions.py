"""What a cluster's partitions give, and what may be asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mpdit import slurm
from mpdit.errors import ConfigError, nearest
from mpdit.grid.resources import Resources, parse_minutes


@dataclass(frozen=True)
class Partition:
    """In Slurm's words."""

    values: dict[str, str]

    @property
    def name(self) -> str:
        return self.values["PartitionName"]

    @property
    def is_default(self) -> bool:
        return self.values.get("Default") == "YES"

    @property
    def minutes(self) -> float:
        """The longest time limit."""
        with suppress(ValueError):
            return parse_minutes(self.values["MaxTime"])
        return float("inf")

    def refuses(self, kind: str, name: str) -> bool:
        """Whether it is closed to an account (``Accounts``) or a quality of service (``Qos``)."""
        allowed = self.values.get(f"Allow{kind}", "ALL")
        denied = self.values.get(f"Deny{kind}", "").split(",")
        return name in denied or (allowed != "ALL" and name not in allowed.split(","))


def read() -> list[Partition]:
    """The cluster's.

    Raises:
        ConfigError: when Slurm cannot be asked.
    """
    answer = slurm.run("scontrol", "--all", "--oneliner", "show", "partition").splitlines()
    pairs = ((word.partition("=") for word in line.split()) for line in answer)
    return [Partition({key: value for key, _, value in words}) for words in pairs]


def check(requests: Iterable[Resources], partitions: Sequence[Partition]) -> None:
    """Hold requests against the partitions.

    Raises:
        ConfigError: for a partition that does not exist, or is closed to the account or quality of
            service, and for more time than it gives.
    """
    known = {partition.name: partition for partition in partitions}
    for request in requests:
        asked = _asked(request.partition, known)
        where = " nor ".join(part.name for part in asked)
        for kind, key in (("Accounts", "account"), ("Qos", "qos")):
            name = getattr(request, key)
            if name and asked and all(part.refuses(kind, name) for part in asked):
                raise ConfigError(f"{name!r} may not use partition {where}", f"slurm.{key}")
        most = max(asked, key=lambda part: part.minutes, default=None)
        if request.time is not None and most is not None and request.time > most.minutes:
            given = most.values["MaxTime"]
            raise ConfigError(
                f"{request.time} minutes are more than partition {most.name} gives: {given}",
                "slurm.time",
            )


def _asked(names: str | None, known: Mapping[str, Partition]) -> list[Partition]:
    """Those that a job may run in, whichever is free first."""
    if names is None:
        return [part for part in known.values() if part.is_default]
    for name in names.split(","):
        if name not in known:
            there = f"There are: {', '.join(sorted(known))}"
            raise ConfigError(
                f"there is no {name!r}.{nearest(name, known)} {there}", "slurm.partition"
            )
    return [known[name] for name in names.split(",")]


def timed(request: Resources, partitions: Sequence[Partition]) -> Resources:
    """With a time limit: its own, or its partition's default; none where there is no limit."""
    if request.time is None:
        part = _asked(request.partition, {part.name: part for part in partitions})[:1]
        for limit in ("DefaultTime", "MaxTime") if part else ():
            with suppress(ValueError):  # NONE, UNLIMITED
                return request.model_copy(update={"time": parse_minutes(part[0].values[limit])})
    return request
