"""Which run and which data a file belongs to; files of two runs or data are not mixed.

Checkpoints, EMA snapshots, sample sets, features and rows of evaluation.jsonl carry a mark: the
config's id, the hash of the training data, and the config itself, so that a refusal can name the
keys that differ. Files of version 0.1 have no mark, and are accepted.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from mpdit.config import RunConfig
from mpdit.disk.jsontext import parse_json
from mpdit.errors import ConfigError

Mark = Mapping[str, Any]
"""An `Identity` as plain JSON values."""

SHOWN = 3
"""How many differing keys a message names."""
RESTORE = "Restore config.yaml, or submit the grid again for a new run"


@dataclass(frozen=True)
class Identity:
    """One run.

    Attributes:
        run: the config's id.
        data: the hash of the training data (`mpdit.data.content`); None before they were read.
        science: the config without the keys on its execution (`RunConfig.science`).
    """

    run: str
    data: str | None
    science: Mapping[str, Any]

    @classmethod
    def of(cls, config: RunConfig, data: str | None = None) -> Identity:
        return cls(config.id, data, config.science())

    def mark(self) -> Mark:
        """The mark that files of this run carry."""
        return asdict(self)

    def short(self) -> dict[str, str | None]:
        """The id and the data alone."""
        return {"run": self.run, "data": self.data}

    def filled(self, mark: Mark) -> Identity:
        """This identity, with the data of ``mark`` where its own data were not read."""
        return self if self.data else replace(self, data=mark.get("data"))

    def check(self, mark: Mark | None, file: object, made: str = "was made") -> None:
        """Compare this identity with the mark of a file that is about to be used.

        Args:
            file: the file's path.
            made: how the file was made, in words.

        Raises:
            ConfigError: saying what differs; a file without a mark is accepted.
        """
        if not mark:
            return
        if not same_id(str(mark.get("run", self.run)), self.run):
            differing = list(_differences(mark.get("science") or {}, self.science))
            shown = differing[:SHOWN]
            told = " and ".join(f"{key}={old}" for key, old, _ in shown)
            wanted = " and ".join(new for _, _, new in shown)
            if len(differing) > SHOWN:
                wanted += f" ({len(differing) - SHOWN} more keys differ)"
            if not differing:
                told, wanted = f"the config {mark['run']}", f"{self.run}"
            raise ConfigError(f"{file} {made} with {told}, config.yaml says {wanted}. {RESTORE}")
        data = mark.get("data")
        if data and self.data and data != self.data:
            raise ConfigError(
                f"{file} {made} with data of the hash {data}, but the training data here have "
                f"{self.data}. Restore the data, or delete the run's folder to begin again with "
                "these"
            )


def same_id(one: str, other: str) -> bool:
    """Whether two ids are equal; version 0.1 wrote the first eight of the twelve digits."""
    return bool(one) and bool(other) and (one.startswith(other) or other.startswith(one))


def parse_mark(text: str | bytes | None) -> dict[str, Any]:
    """A JSON object from a file's metadata; empty when there is none, or it is damaged."""
    try:
        found = parse_json(text or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str, str]]:
    """(dotted key, old value, new value) of each key that differs; values as JSON."""
    for key in sorted(old.keys() | new.keys()):
        one, other = old.get(key), new.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, f"{prefix}{key}.")
        elif (plain := json.dumps(one)) != (wanted := json.dumps(other)):
            yield f"{prefix}{key}", plain, wanted
