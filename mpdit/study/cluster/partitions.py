"""What a cluster's partitions give, and what may be asked of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    for request in requests:
        _check(request, partitions)


def timed(request: Resources, partitions: Sequence[Partition]) -> Resources:
    """With a time limit: its own, or its partition's default; none where there is no limit."""
    if request.time is not None:
        return request
    return request.model_copy(update={"time": _default_minutes(request.partition, partitions)})


def _default_minutes(name: str | None, partitions: Sequence[Partition]) -> int | None:
    for part in partitions:
        # of several, the first
        named = part.is_default if name is None else part.name == name.partition(",")[0]
        for limit in ("DefaultTime", "MaxTime") if named else ():
            with suppress(ValueError):  # NONE, UNLIMITED
                return parse_minutes(part.values[limit])
    return None


def _check(request: Resources, partitions: Sequence[Partition]) -> None:
    known = {partition.name: partition for partition in partitions}
    if request.partition is None:
        asked = [part for part in partitions if part.is_default]
    else:
        names = request.partition.split(",")  # the job runs in whichever is free first
        for name in names:
            if name not in known:
                there = ", ".join(sorted(known))
                hint = nearest(name, known)
                raise ConfigError(
                    f"there is no {name!r}.{hint} There are: {there}", "slurm.partition"
                )
        asked = [known[name] for name in names]
    if not asked:
        return
    where = " nor ".join(part.name for part in asked)
    for kind, key in (("Accounts", "account"), ("Qos", "qos")):
        name = getattr(request, key)
        if name is not None and all(part.refuses(kind, name) for part in asked):
            raise ConfigError(f"{name!r} may not use partition {where}", f"slurm.{key}")
    most = max(asked, key=lambda part: part.minutes)
    if request.time is not None and request.time > most.minutes:
        given = most.values["MaxTime"]
        raise ConfigError(
            f"{request.time} minutes are more than partition {most.name} gives: {given}",
            "slurm.time",
        )
