"""A grid, multiplied out: its runs, the excluded combinations, and those that are the same run."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from mpdit.catalogue import Dataset
from mpdit.catalogue.measures import labelled
from mpdit.config import DEFAULTS, RunConfig
from mpdit.errors import ConfigError
from mpdit.extensions import Extension, blamed
from mpdit.flops import count_parameters
from mpdit.grid.exclusions import Exclusion, conditions_text
from mpdit.grid.grid import Axis, Grid
from mpdit.grid.names import axis_label, run_name, slug
from mpdit.grid.resources import Resources
from mpdit.grid.selection import names_of, select
from mpdit.grid.settings import Layer, blame, fold, is_alone, shortest, to_run
from mpdit.modelconfig import ModelConfig

if TYPE_CHECKING:
    from mpdit.grid.subsets import Chosen


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    ``variant`` is the name that runs share when they differ only by seed and tuned values;
    ``named`` is its ladder step or variant; ``axes`` and ``tune`` are the values of its axes.
    """

    name: str
    variant: str
    named: str | None
    axes: dict[str, Any]
    tune: dict[str, Any]
    seed: int
    config: RunConfig
    resources: Resources
    is_beyond: bool = False
    """Whether its tuned value lies beyond the grid's range."""

    @property
    def id(self) -> str:
        return self.config.id

    @property
    def parameters(self) -> int:
        """The number of parameters of its model."""
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, int]:
        """The parameters by part: embedders, attention, mlp, modulation, final.

        Raises:
            ConfigError: when an extension's function fails.
        """
        with self.blamed():
            return _parts(self.config.model, self.config.data.spec, self.config.extensions)

    def blamed(self) -> AbstractContextManager[None]:
        """Turn an error in an extension's code into one message that names the variant."""
        return blamed(f" (variant {self.variant})")

    def summary(self) -> dict[str, Any]:
        """The values that tell it from the study's other runs, as JSON values."""
        keys = ("name", "id", "variant", "named", "axes", "tune", "seed", "parameters")
        return {key: getattr(self, key) for key in keys}


@cache
def _parts(model: ModelConfig, data: Dataset, _extensions: tuple[Extension, ...]) -> dict[str, int]:
    # an edited extension gives the same names other parameters
    return count_parameters(model, data)


@dataclass(frozen=True)
class Excluded:
    """The combinations that one exclusion left out: their labels, and their number of runs."""

    exclusion: Exclusion
    labels: tuple[str, ...]
    runs: int


@dataclass(frozen=True)
class Merged:
    """Two labels of the same config: ``label`` is dropped, and ``kept`` stands for both."""

    label: str
    kept: str
    runs: int


@dataclass(frozen=True)
class Plan:
    """All runs of a study's grid, in its order.

    For a staged grid these are all runs that may be needed; `mpdit.grid.stages` selects from them.
    """

    grid: Grid
    runs: tuple[PlannedRun, ...]
    excluded: tuple[Excluded, ...]
    merged: tuple[Merged, ...]
    defaults: int = DEFAULTS
    """The version of the defaults for keys that the grid does not set."""
    fraction: Chosen | None = None
    """The part of the crossed grid that is run, where the grid declares a fraction."""

    @property
    def study(self) -> str:
        return self.grid.study

    def only(self, *patterns: str) -> Plan:
        """The runs with a name (`selection.names_of`) that matches a shell pattern.

        Raises:
            ConfigError: for a pattern that none matches.
        """
        named = ((run, names_of(run.name, run.variant, run.named)) for run in self.runs)
        return replace(self, runs=tuple(select(named, patterns, self.study)))


@dataclass(frozen=True)
class _Point:
    """One combination, before its seeds."""

    named: str | None
    axes: dict[str, Any]
    tune: dict[str, Any]
    layer: Layer
    named_keys: Collection[str]
    resources: Resources
    is_beyond: bool

    @property
    def variant(self) -> str:
        return "_".join(filter(None, (self.named, axis_label(self.axes)))) or "base"

    @property
    def label(self) -> str:
        """The variant and the tuned values, safe in a folder's name."""
        named = slug(self.named) if self.named else None
        parts = (named, axis_label(self.axes), axis_label(self.tune))
        return "_".join(filter(None, parts)) or "base"


def _points(grid: Grid) -> Iterator[_Point]:
    for named in grid.named or (None,):
        for choices in _product(grid.axes):
            for tuned, is_beyond in _tuned(grid.tune):
                own = fold([named.layer if named else {}, choices | tuned])
                yield _Point(
                    named=named.name if named else None,
                    axes={key: setting.value for key, setting in choices.items()},
                    tune={key: setting.value for key, setting in tuned.items()},
                    layer=fold([grid.base, own, grid.overrides]),
                    named_keys=named.layer.keys() if named else (),
                    resources=named.resources if named else grid.resources,
                    is_beyond=is_beyond,
                )


def _product(axes: Sequence[Axis]) -> Iterator[Layer]:
    for choices in itertools.product(*(axis.choices for axis in axes)):
        yield {key: setting for choice in choices for key, setting in choice.items()}


def _tuned(axes: Sequence[Axis]) -> Iterator[tuple[Layer, bool]]:
    """The points of the tune axes, then those beyond one end of one range."""
    for choices in _product(axes):
        yield choices, False
    for index, axis in enumerate(axes):
        outside = replace(axis, choices=(*axis.before, *axis.after))
        for choices in _product([*axes[:index], outside, *axes[index + 1 :]]):
            yield choices, True


@dataclass
class _Tally:
    labels: dict[str, None] = field(default_factory=dict)
    runs: int = 0


def make_plan(grid: Grid, defaults: int = DEFAULTS) -> Plan:
    """Multiply a grid out into its runs.

    Args:
        defaults: the version of the defaults for keys that the grid does not set.

    Raises:
        ConfigError: for an invalid combination that is not excluded, and for two configs with one
            id.
    """
    runs: dict[str, PlannedRun] = {}
    left_out = {index: _Tally() for index in range(len(grid.exclusions))}
    merged: dict[tuple[str, str], int] = {}
    for point in _points(grid):
        variant, label = point.variant, point.label
        first, error = _try_run(point.layer, grid, defaults)
        if first is None and point.is_beyond:
            continue  # the range cannot be extended so far
        for seed in (*grid.declared.tuning, *grid.seeds):
            config = first and first.model_copy(update={"seed": seed})
            index = _excluded_by(grid.exclusions, point, config, seed)
            if index is not None:
                left_out[index].labels[label] = None
                left_out[index].runs += 1
                continue
            if config is None:
                raise _explain(grid, point, error)
            run = PlannedRun(
                name=run_name(label, seed, config.id),
                variant=variant,
                named=point.named,
                axes=point.axes,
                tune=point.tune,
                seed=seed,
                config=config,
                resources=point.resources,
                is_beyond=point.is_beyond,
            )
            kept = runs.setdefault(config.id, run)
            if kept is not run:
                _check_same(kept, run)
                pair = (label, _label_of(kept))
                merged[pair] = merged.get(pair, 0) + 1
    if not runs:
        raise ConfigError(f"{grid.source.name}: every combination is excluded")
    _check_metric(grid, runs.values())
    fraction = None
    if grid.declared.fraction is not None:
        from mpdit.grid.subsets import cell, choose

        every = {cell(run.axes): run.axes for run in runs.values()}
        fraction = choose(grid, list(every.values()))
        runs = {key: run for key, run in runs.items() if cell(run.axes) in fraction.cells}
        levels = {
            key: tuple(choice[key].value for choice in axis.choices)
            for axis in grid.axes
            for key in axis.keys
        }
        declared = replace(grid.declared, fraction=fraction.found.effects, levels=levels)
        grid = replace(grid, declared=declared)
    return Plan(
        grid=grid,
        runs=tuple(runs.values()),
        excluded=tuple(
            Excluded(grid.exclusions[index], tuple(tally.labels), tally.runs)
            for index, tally in left_out.items()
        ),
        merged=tuple(Merged(label, kept, count) for (label, kept), count in merged.items()),
        defaults=defaults,
        fraction=fraction,
    )


def _check_metric(grid: Grid, runs: Iterable[PlannedRun]) -> None:
    """Check that every run measures the declared metric.

    Raises:
        ConfigError: where a run does not, with the metrics that would measure it.
    """
    declared = grid.declared.metric
    row = labelled(declared) if declared else None
    if row is None:
        return
    for run in runs:
        measured = run.config.evaluate.metrics
        if row.name not in measured:
            wanted = ", ".join((*measured, row.name))
            raise grid.source.error(
                ("metric",),
                f"{declared} is not measured in {run.name}: add it to base, such as "
                f"'evaluate: {{metrics: [{wanted}]}}'",
            )


def _try_run(layer: Layer, grid: Grid, defaults: int) -> tuple[RunConfig | None, ConfigError]:
    try:
        return to_run(layer, grid.seeds[0], grid.extensions, defaults), ConfigError("")
    except ConfigError as error:
        return None, error


def _label_of(run: PlannedRun) -> str:
    return run.name.removesuffix(f"_s{run.seed}-{run.id}")


def _check_same(kept: PlannedRun, run: PlannedRun) -> None:
    if kept.config.science() != run.config.science():
        raise ConfigError(
            f"{kept.name} and {run.name} are different runs with the same id: "
            "change anything in one of them, such as a seed"
        )


def _excluded_by(
    exclusions: Sequence[Exclusion], point: _Point, config: RunConfig | None, seed: int
) -> int | None:
    """The first exclusion that applies to the point."""
    for index, exclusion in enumerate(exclusions):
        if exclusion.meets(point.named, seed, point.layer, config):
            return index
    return None


def _explain(grid: Grid, point: _Point, error: ConfigError) -> ConfigError:
    """A combination's error with its line and the ``exclude`` that leaves it out."""
    message = error.message
    if "valid boolean" in message:
        message += " (write true or false)"
    keys = blame(point.layer, error)
    if not keys:
        hint = " (nor is model.name)" if error.key == "model.depth" else ""
        return ConfigError(f"{grid.source.name}: {error}{hint}")
    if is_alone(keys, point.layer, error):
        return point.layer[keys[0]].error(message)
    factors = point.axes | point.tune
    multiplied = [key for key in keys if key in factors and key not in grid.overrides]
    if multiplied:
        condition = {shortest(key): factors[key] for key in multiplied}
        if point.named and any(key in point.named_keys for key in keys):
            condition = {"variant": point.named, **condition}
        message += f". To leave such combinations out: exclude: [{conditions_text(condition)}]"
    own = [key for key in keys if key in factors or key in point.named_keys]
    return point.layer[(own or keys)[0]].error(message)
