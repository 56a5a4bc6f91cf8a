"""Which variants a study compares, derived from their configs and never from their names.

Within a comparison the first variant in grid order is the baseline. Where a study has several model
sizes or data sets, each has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mpdit.decisions.family import Pair


@dataclass(frozen=True)
class Design:
    """The design of a variant.

    Attributes:
        setting: the values that all variants of a comparison share: model size, data, and in joined
            studies the study.
        conditioning: of the blocks and of the final layer.
    """

    variant: str
    setting: Hashable
    conditioning: Hashable
    flags: tuple[str, ...]


@dataclass(frozen=True)
class ComparisonGroup:
    """Variants in grid order, compared with the first."""

    variants: tuple[str, ...]

    @property
    def baseline(self) -> str:
        return self.variants[0]

    @property
    def pairs(self) -> list[Pair]:
        return [(variant, self.baseline) for variant in self.variants[1:]]


def ladder(designs: Sequence[Design]) -> list[ComparisonGroup]:
    """The variants that share the first one's conditioning: they differ by flags."""
    same = [design for design in designs if design.conditioning == designs[0].conditioning]
    return _grouped(same, lambda design: design.setting)


def modulation(designs: Sequence[Design]) -> list[ComparisonGroup]:
    """Sets of variants with the same flags that differ in conditioning."""
    conditioning = {design.variant: design.conditioning for design in designs}
    groups = _grouped(designs, lambda design: (design.setting, design.flags))
    return [group for group in groups if len({conditioning[v] for v in group.variants}) > 1]


def others(designs: Sequence[Design]) -> list[ComparisonGroup]:
    """The variants in neither ladder nor modulation, compared with the first of their setting."""
    seen = {v for group in (*ladder(designs), *modulation(designs)) for v in group.variants}
    found = []
    for group in _grouped(designs, lambda design: design.setting):
        rest = [variant for variant in group.variants if variant not in seen]
        if rest and group.baseline not in rest:
            found.append(ComparisonGroup((group.baseline, *rest)))
        elif rest:
            found.append(ComparisonGroup(tuple(rest)))
    return found


def comparisons(designs: Sequence[Design]) -> list[ComparisonGroup]:
    """All comparisons of the study."""
    return [*ladder(designs), *modulation(designs), *others(designs)]


def pairs(designs: Sequence[Design]) -> list[Pair]:
    """The study's family: all pairs of a variant and a baseline that it is compared with."""
    return list(dict.fromkeys(pair for group in comparisons(designs) for pair in group.pairs))


def steps(group: ComparisonGroup, designs: Sequence[Design]) -> list[Pair]:
    """(variant, the one before) for each step of a ladder: a variant with more flags than the last.

    Variants that do not add to the last step are skipped. Fewer than two steps are not a ladder.
    """
    flags = {design.variant: set(design.flags) for design in designs}
    chain = [group.baseline]
    for variant in group.variants[1:]:
        if flags[variant] > flags[chain[-1]]:
            chain.append(variant)
    return [(after, before) for before, after in pairwise(chain)] if len(chain) > 2 else []


def _grouped(designs: Sequence[Design], key: Callable[[Design], Hashable]) -> list[ComparisonGroup]:
    groups: dict[Hashable, list[str]] = {}
    for design in designs:
        groups.setdefault(key(design), []).append(design.variant)
    return [ComparisonGroup(tuple(group)) for group in groups.values()]
