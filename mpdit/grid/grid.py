"""The grid language: one YAML file → named variants, axes, exclusions and seeds, all checked.

This module reads the file's parts, each with its line; ``plan`` multiplies them out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpdit import extensions
from mpdit.disk.rundir import PAPER, PUBLISHED
from mpdit.disk.yamlfile import YamlText, read
from mpdit.errors import ConfigError, nearest
from mpdit.extensions import Extension
from mpdit.grid.declared import Declared, read_declared, read_fraction
from mpdit.grid.exclusions import Exclusion, read_exclusions
from mpdit.grid.keys import TOP_KEYS
from mpdit.grid.names import check_name
from mpdit.grid.ranges import Range, beyond, read_range
from mpdit.grid.resources import NOTHING, Resources, read_resources
from mpdit.grid.seeds import TUNING, read_seeds, read_tuning
from mpdit.grid.sets import STUDY_KEYS, read_sets
from mpdit.grid.settings import Layer, Setting, kinds, read_axes, read_layer
from mpdit.grid.variants import Named, read_variants

MAX_POINTS = 100_000


@dataclass(frozen=True)
class Axis:
    """One factor of the product; each choice sets one key, or several that are zipped."""

    choices: tuple[Layer, ...]
    ranges: dict[str, Range]
    """The ranges, by key, of values that were written as a range."""
    before: tuple[Layer, ...] = ()
    after: tuple[Layer, ...] = ()
    """Choices beyond the ends of a range, by which tuning on its own seeds may extend it."""

    @property
    def line(self) -> list[Any]:
        """The values of an axis with one key, in order, including those beyond its ends."""
        every = (*self.before, *self.choices, *self.after)
        return [setting.value for choice in every for setting in choice.values()]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.choices[0])


@dataclass(frozen=True)
class Grid:
    """A study as it was written. ``overrides`` are the settings of ``--set`` for every run;
    ``site`` are the resources that apply where the grid names none."""

    text: str
    source: YamlText
    study: str
    description: str
    base: Layer
    named: tuple[Named, ...]
    axes: tuple[Axis, ...]
    tune: tuple[Axis, ...]
    exclusions: tuple[Exclusion, ...]
    seeds: tuple[int, ...]
    resources: Resources
    overrides: Layer
    set_texts: tuple[str, ...]
    declared: Declared
    extensions: tuple[Extension, ...] = ()
    site: Resources = NOTHING

    @property
    def points(self) -> int:
        """Combinations before any is excluded or merged."""
        factors = [len(axis.choices) for axis in self.axes] + [len(axis.line) for axis in self.tune]
        seeds = len(self.seeds) + len(self.declared.tuning)
        return max(1, len(self.named)) * math.prod(factors) * seeds

    @property
    def is_staged(self) -> bool:
        """Whether the results of some runs decide which come next."""
        return bool(self.declared.looks or self.declared.tuning)


def load_grid(
    file: Path,
    set_texts: Sequence[str] = (),
    extensions_in: Path | None = None,
    site: Resources = NOTHING,
) -> Grid:
    """Read a grid's file. Its extensions are executed.

    Args:
        set_texts: ``key=value`` texts of ``--set``, which replace the file's values.
        extensions_in: a folder with copies of the extensions, in place of the grid's own paths.
        site: the resources that apply where the grid names none.

    Raises:
        ConfigError: naming file, line and key of the first thing that is wrong.
    """
    text, source = read(file)
    return parse_grid(text, source, set_texts, extensions_in, site)


def parse_grid(
    text: str,
    source: YamlText,
    set_texts: Sequence[str] = (),
    extensions_in: Path | None = None,
    site: Resources = NOTHING,
) -> Grid:
    """As ``load_grid``, from a parsed text.

    Raises:
        ConfigError: as ``load_grid``.
    """
    top = Setting(source.tree, source, ())
    if not isinstance(source.tree, dict):
        raise top.error("a grid is a mapping that begins with 'study: NAME'")
    for key in source.tree:
        if key not in TOP_KEYS:
            raise source.error((key,), f"unknown key.{nearest(key, TOP_KEYS)}")
    if "study" not in source.tree:
        raise top.error("study: is not set: it names the folder under results/")
    loaded = tuple(_extensions(top, extensions_in))  # first: they make keys known
    sets = read_sets(set_texts)
    own = {key: sets.study.get(key) or top.get(key) for key in STUDY_KEYS}
    seeds, tuning = read_seeds(own["seeds"]), read_tuning(top.get("tune"))
    node = top.get("slurm")
    resources = site if node is None else read_resources(site, node)
    named = read_variants(top, resources)
    sets.check_variants([one.name for one in named])
    axes = [*_axes(top, "grid"), *_zips(top)]
    grid = Grid(
        text=text,
        source=source,
        study=_study_name(top.child("study")),
        description=_description(top),
        base=_layer(top, "base"),
        named=tuple(replace(one, resources=sets.over(one.resources, one.name)) for one in named),
        axes=tuple(axes),
        tune=tuple(_extended(axis) if tuning else axis for axis in _axes(top, "tune")),
        exclusions=tuple(read_exclusions(top)),
        seeds=seeds.every,
        resources=sets.over(resources),
        overrides=sets.layer,
        set_texts=tuple(set_texts),
        extensions=loaded,
        site=site,
        declared=replace(
            read_declared(own["metric"], own["margin"]),
            looks=seeds.looks,
            tuning=tuning,
            fraction=read_fraction(own["fraction"]),
        ),
    )
    _check_conflicts(grid)
    _check_design(grid, top, own)
    if grid.points > MAX_POINTS:
        raise ConfigError(
            f"{source.name}: {grid.points:,} combinations; a study has at most {MAX_POINTS:,}"
        )
    return grid


def _extensions(top: Setting, folder: Path | None) -> Iterator[Extension]:
    """Execute the user's files; their paths are relative to the grid's folder."""
    node = top.get("extensions")
    if node is None:
        return
    if not isinstance(node.value, list) or not all(isinstance(v, str) for v in node.value):
        raise node.error("should be a list of Python files, such as [ideas/sigmoid_attention.py]")
    names: dict[str, Setting] = {}
    for child in map(node.child, range(len(node.value))):
        file = Path(child.value)
        if file.suffix != ".py":
            raise child.error("should be a Python file, ending in .py")
        if file.stem in names:
            line = names[file.stem].line
            raise child.error(f"an extension {file.stem!r} is listed in line {line} already")
        names[file.stem] = child
        place = Path(top.source.name).parent / file if folder is None else folder / file.name
        if not place.is_file():
            raise child.error(f"there is no file {place}")
        yield extensions.load(place)


def _study_name(node: Setting) -> str:
    name = check_name(node, "a study")
    if name.casefold() in (PAPER, PUBLISHED):
        raise node.error(
            f"{name!r} cannot name a study: results/{name} is where reports are written"
        )
    return name


def _layer(top: Setting, key: str) -> Layer:
    return read_layer(top.source, (key,), top.value.get(key))


def _description(top: Setting) -> str:
    node = top.get("description")
    if node is None:
        return ""
    if not isinstance(node.value, str):
        raise node.error("should be text")
    return " ".join(node.value.split())


# Axes --------------------------------------------------------------------------------------------


def _axes(top: Setting, section: str) -> list[Axis]:
    """One axis for each key of ``grid`` or ``tune``."""
    node = top.get(section)
    own = ("seeds",) if section == "tune" else ()
    layer = {} if node is None else read_axes(node, own)
    return [_axis({key: setting}) for key, setting in layer.items()]


def _extended(axis: Axis) -> Axis:
    """The axis of one key, with choices beyond its ends if it was written as a range."""
    [key] = axis.keys
    if key not in axis.ranges:
        return axis
    node, found = axis.choices[0][key], axis.ranges[key]
    before, after = (
        tuple({key: node._replace(value=value)} for value in values)
        for values in beyond(found, whole=float not in kinds(key))
    )
    return replace(axis, before=before, after=after)


def _zips(top: Setting) -> list[Axis]:
    """One axis for each mapping of ``zip``: its keys' lists are walked side by side."""
    node = top.get("zip")
    if node is None:
        return []
    many = isinstance(node.value, list)
    axes = []
    for part in [node.child(i) for i in range(len(node.value))] if many else [node]:
        layer = read_axes(part)
        if not layer:
            raise part.error("should be a mapping of keys to lists")
        axes.append(_axis(layer, part))
    return axes


def _axis(layer: Layer, zipped: Setting | None = None) -> Axis:
    """The axis of one key, or of several zipped keys; each has a list of values or a range."""
    ranges = {
        key: read_range(node, key) for key, node in layer.items() if isinstance(node.value, dict)
    }
    columns = {
        key: [node._replace(value=value) for value in ranges[key].values]
        if key in ranges
        else _choices(node)
        for key, node in layer.items()
    }
    lengths = {key: len(column) for key, column in columns.items()}
    if zipped is not None and len(set(lengths.values())) > 1:
        listed = ", ".join(f"{key} has {length}" for key, length in lengths.items())
        raise zipped.error(f"zipped lists should be equally long: {listed}")
    rows = zip(*columns.values(), strict=True)
    return Axis(tuple(dict(zip(columns, row, strict=True)) for row in rows), ranges)


def _choices(setting: Setting) -> list[Setting]:
    if not isinstance(setting.value, list) or not setting.value:
        raise setting.error(f"should be a list of values, not {setting.value!r:.80}")
    return [setting.child(index) for index in range(len(setting.value))]


def _check_design(grid: Grid, top: Setting, own: Mapping[str, Setting | None]) -> None:
    """Check that looks, tuning and fraction fit the rest of the grid.

    Raises:
        ConfigError: with the line of the part that does not fit.
    """
    looks, tuning = grid.declared.looks, grid.declared.tuning
    seeds, fraction = own["seeds"], own["fraction"]
    crossed = [axis for axis in grid.axes if len(axis.choices) > 1]
    if seeds and tuning and max(grid.seeds) >= TUNING:
        raise seeds.error(f"seeds from {TUNING:,} on are reserved for tuning: choose smaller ones")
    if tuning and all(len(set(map(repr, _values(axis)))) == 1 for axis in grid.tune):
        axis = grid.tune[0]
        raise axis.choices[0][axis.keys[0]].error(
            f"one value leaves nothing to choose: add values, or write {axis.keys[0]} under base"
        )
    if looks and grid.tune and not tuning:
        raise top.child("tune").error(
            "looks need tuning to end before the comparisons: add 'seeds: 2' to tune"
        )
    if seeds and looks and not grid.named and len(crossed) > 1:
        raise seeds.error(
            "looks compare variants with a baseline, but a grid that crosses axes estimates the "
            "effects of its factors, which needs all runs: write a number of seeds"
        )
    if grid.is_staged:
        for exclusion in grid.exclusions:
            if "seed" in exclusion.conditions:
                raise exclusion.setting.child("seed").error(
                    "cannot exclude a seed: with looks, or tuning on seeds of its own, every "
                    "variant has the same seeds"
                )
    if fraction and grid.declared.fraction and (grid.named or len(crossed) < 2):
        raise fraction.error(
            "a fraction needs a grid that crosses two axes or more, without named variants"
        )


def _values(axis: Axis) -> list[list[Any]]:
    """The values of an axis's choices."""
    return [[setting.value for setting in choice.values()] for choice in axis.choices]


def _check_conflicts(grid: Grid) -> None:
    """Check that no two factors of the product set one key, as one would silently win, and that
    excluded variants exist.

    Raises:
        ConfigError: with the line of the second factor.
    """
    taken: dict[str, Setting] = {}
    for axis in (*grid.axes, *grid.tune):
        for key, setting in axis.choices[0].items():
            if key in taken:
                raise setting.error(f"{key} is already an axis in line {taken[key].line}")
            taken[key] = setting
    names = [named.name for named in grid.named]
    for exclusion in grid.exclusions:
        for name in exclusion.conditions.get("variant", ()):
            if name not in names:
                raise exclusion.setting.child("variant").error(
                    f"there is no variant {name!r:.80}.{nearest(str(name), names)}"
                )
    for named in grid.named:
        for key in named.layer.keys() & taken.keys():
            raise named.layer[key].error(
                f"{key} is set by {named.name!r} and is an axis in line {taken[key].line}: keep one"
            )
