"""The partitions of a cluster, and what may be requested of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mpdit import slurm
from mpdit.errors import ConfigError, nearest
from mpdit.grid.resources import Resources, parse_minutes


@dataclass(frozen=True)
class Partition:
    """One partition; ``values`` are Slurm's keys and texts."""

    values: dict[str, str]

    @property
    def name(self) -> str:
        return self.values["PartitionName"]

    @property
    def is_default(self) -> bool:
        return self.values.get("Default") == "YES"

    @property
    def minutes(self) -> float:
        """The longest time limit, in minutes."""
        with suppress(ValueError):
            return parse_minutes(self.values["MaxTime"])
        return float("inf")

    def refuses(self, kind: str, name: str) -> bool:
        """Whether it rejects an account (kind ``Accounts``) or a quality of service (``Qos``)."""
        allowed = self.values.get(f"Allow{kind}", "ALL")
        denied = self.values.get(f"Deny{kind}", "").split(",")
        return name in denied or (allowed != "ALL" and name not in allowed.split(","))


def read() -> list[Partition]:
    """Read the cluster's partitions.

    Raises:
        ConfigError: when Slurm does not answer.
    """
    answer = slurm.run("scontrol", "--all", "--oneliner", "show", "partition").splitlines()
    pairs = ((word.partition("=") for word in line.split()) for line in answer)
    return [Partition({key: value for key, _, value in words}) for words in pairs]


def check(requests: Iterable[Resources], partitions: Sequence[Partition]) -> None:
    """Check requests against the partitions.

    Raises:
        ConfigError: for a partition that does not exist or rejects the account or quality of
            service, and for a time above its limit.
    """
    known = {partition.name: partition for partition in partitions}
    for request in requests:
        asked = _asked(request, known)
        where = " nor ".join(part.name for part in asked)
        for kind, key in (("Accounts", "account"), ("Qos", "qos")):
            name = getattr(request, key)
            if name and asked and all(part.refuses(kind, name) for part in asked):
                raise ConfigError(f"{name!r} may not use partition {where}", request.blame(key))
        most = max(asked, key=lambda part: part.minutes, default=None)
        if request.time is not None and most is not None and request.time > most.minutes:
            given = most.values["MaxTime"]
            raise ConfigError(
                f"{request.time} minutes exceed the limit of partition {most.name}: {given}",
                request.blame("time"),
            )


def _asked(request: Resources, known: Mapping[str, Partition]) -> list[Partition]:
    """The partitions that a job may run in; Slurm takes the one that is free first."""
    if request.partition is None:
        return [part for part in known.values() if part.is_default]
    names = request.partition.split(",")
    for name in names:
        if name not in known:
            hint = f"{nearest(name, known)} Known: {', '.join(sorted(known))}"
            raise ConfigError(
                f"partition {name!r} does not exist.{hint}", request.blame("partition")
            )
    return [known[name] for name in names]


def timed(request: Resources, partitions: Sequence[Partition]) -> Resources:
    """The request with its partition's default time limit where it has none of its own."""
    if request.time is None:
        for part in _asked(request, {part.name: part for part in partitions})[:1]:
            for limit in ("DefaultTime", "MaxTime"):
                with suppress(ValueError):  # NONE, UNLIMITED
                    minutes = parse_minutes(part.values[limit])
                    return request.with_value("time", minutes, f"{limit} of {part.name}")
    return request


def longest(request: Resources, partitions: Sequence[Partition]) -> float:
    """The longest time limit, in minutes, that the request's partitions allow."""
    asked = _asked(request, {part.name: part for part in partitions})
    return max((part.minutes for part in asked), default=float("inf"))
