"""The figures and tables of a report, each made by one registered function."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

from analysis.study import Study
from mpdit.errors import nearest

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Exhibit(Generic[Made]):
    """One figure or table. Call it with a study to make it.

    Attributes:
        make: the function, whose name is the exhibit's name. It raises `NothingToShow` if the
            study has no data for it yet.
        title: the heading.
        caption: the explanation that a reader needs.
        place: the order in a report: exhibits of one kind are sorted by place.
    """

    make: Callable[..., Made]
    title: str
    caption: str
    place: int

    @property
    def name(self) -> str:
        return self.make.__name__

    def __call__(self, study: Study) -> Made:
        return self.make(study)


E = TypeVar("E", bound=Exhibit[Any])
F = TypeVar("F", bound=Callable[..., Any])


class Exhibits(Mapping[str, E]):
    """All exhibits of one kind by name, in the order of their places."""

    def __init__(self, word: str, kind: type[E]) -> None:
        self._word, self._kind = word, kind
        self._found: dict[str, E] = {}

    def __getitem__(self, name: str) -> E:
        if name not in self._found:
            raise KeyError(f"there is no {self._word} {name!r}.{nearest(name, self._found)}")
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._found, key=lambda name: (self._found[name].place, name)))

    def __len__(self) -> int:
        return len(self._found)

    def register(self, make: F, **fields: Any) -> F:
        """Add an exhibit, made by the function ``make``.

        Raises:
            ValueError: when the name is taken. The message names both functions.
        """
        exhibit = self._kind(make=make, **fields)
        if exhibit.name in self._found:
            places = f"{_place(self._found[exhibit.name].make)} and {_place(make)}"
            raise ValueError(f"two {self._word}s are named {exhibit.name!r}: {places}. Rename one")
        self._found[exhibit.name] = exhibit
        return make

    def discover(self, package: str, path: Iterable[str]) -> dict[str, Callable[..., Any]]:
        """Import all modules of a package, which registers their exhibits; return the functions."""
        for module in pkgutil.iter_modules(path, f"{package}."):
            import_module(module.name)
        return {name: exhibit.make for name, exhibit in self.items()}


def _place(make: Callable[..., Any]) -> str:
    code = inspect.unwrap(make).__code__
    return f"{code.co_filename}:{code.co_firstlineno}"
