"""A section of a run's config: strict values, and which of them are part of a run's identity.

docs/adding.md says how to add, rename and remove a field without giving older runs another id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from mpdit.catalogue.registry import Registry
from mpdit.text import CONTROL, printable

Positive = Annotated[int, Field(gt=0)]


def named_in(table: Registry[Any]) -> AfterValidator:
    """Refuse a name that has no row in a table."""
    return AfterValidator(lambda name: table.find(name).name)


def _is_path(path: str) -> str:
    if CONTROL.search(path):
        raise ValueError(f"{printable(path)!r} holds a control character, as no path does")
    return path


Place = Annotated[str, AfterValidator(_is_path)]
"""A path on this machine."""


@dataclass(frozen=True)
class SameAs:
    """The value of another field of the section, or a value derived from it.

    Attributes:
        meaning: the other field's value → this field's value; None where they are the same.
    """

    field: str
    meaning: Mapping[Any, Any] | None = None


@dataclass(frozen=True)
class Later:
    """Mark a field that was added after runs had been made.

    While the field has the value that means "as before", frozen here, it is not part of a run's
    identity, so older runs keep theirs.

    Attributes:
        as_before: the value in JSON, or `SameAs`.
        since: the version of the defaults (`DEFAULTS`) that the field came with; 0 while its
            default means "as before".
    """

    as_before: Any
    since: int = 2

    def value(self, section: Mapping[str, Any]) -> Any:
        """The value that means "as before" in a section."""
        if isinstance(self.as_before, SameAs):
            value = section[self.as_before.field]
            return self.as_before.meaning[value] if self.as_before.meaning else value
        return self.as_before


@dataclass(frozen=True)
class Formerly:
    """Mark a renamed field: its old name is still read, and hashed as before.

    Attributes:
        meaning: pairs of an old value and the value that means the same now, where they differ.
    """

    name: str
    meaning: tuple[tuple[Any, Any], ...] = ()

    def read(self, value: Any) -> Any:
        """The present value for an old one."""
        return next((new for old, new in self.meaning if old is value), value)


class How:
    """Mark a field that says where or how a run is executed: not part of its identity."""


HOW = How()


class Added:
    """Mark a field that came after version 0.1 and is not part of a run's identity."""


ADDED = Added()


class Section(BaseModel):
    """A part of a run's config: strict, immutable, with the marks `Later`, `Formerly` and `HOW`."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    retired: ClassVar[Mapping[str, Any]] = {}
    """Removed fields → the one value that older configs may still give them; the value stays in
    the identity."""

    @model_validator(mode="before")
    @classmethod
    def _of_old(cls, data: Any) -> Any:
        """Read a config of an older version: renamed and removed fields."""
        formerly = marks(cls, Formerly)
        if not isinstance(data, Mapping) or not (formerly or cls.retired):
            return data
        data = dict(data)
        for name, mark in formerly.items():
            if mark.name in data:
                if name in data:
                    raise ValueError(f"{mark.name} is the former name of {name}: give one of them")
                data[name] = mark.read(data.pop(mark.name))
        for name, value in cls.retired.items():
            if data.pop(name, value) != value:
                raise ValueError(f"{name} was removed; only {value!r} is still accepted")
        return data

    def fill(self, **derived: Any) -> None:
        """Set derived fields of this frozen section, during its own validation."""
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def identity(self) -> dict[str, Any]:
        """The section's part of a run's identity: plain values, the same in every later version."""
        how, later, formerly = (marks(type(self), mark) for mark in (How, Later, Formerly))
        tree = self.model_dump(mode="json", exclude=set(how))
        for name in [name for name, mark in later.items() if tree[name] == mark.value(tree)]:
            del tree[name]
        for name, mark in formerly.items():
            if name in tree:
                tree[mark.name] = tree.pop(name)
        return {**tree, **self.retired}

    @classmethod
    def as_before(cls, data: Mapping[str, Any], defaults: int) -> dict[str, Any]:
        """``data``, with the value "as before" of omitted fields that are later than ``defaults``.

        So a config that an older version resolved, or the grid of a study that began with it, keeps
        its meaning when defaults change.
        """
        own = {name: f.default for name, f in cls.model_fields.items() if not f.is_required()}
        late = {n: m for n, m in marks(cls, Later).items() if m.since > defaults and n not in data}
        return {**data, **{name: mark.value({**own, **data}) for name, mark in late.items()}}


@cache
def marks(section: type[BaseModel], mark: type[Any]) -> dict[str, Any]:
    """Field → its mark of this type, for the fields that have one."""
    return {
        name: found
        for name, field in section.model_fields.items()
        for found in field.metadata
        if isinstance(found, mark)
    }
