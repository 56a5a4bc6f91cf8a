"""The keys that a grid's file may have, as docs/catalogue.md prints them."""

from __future__ import annotations

from typing import NamedTuple

AFTER = "after 0.1"


class GridKey(NamedTuple):
    """One key of a grid. ``key.inner`` is inside another key; ``<name>`` is any user's name."""

    name: str
    takes: str
    does: str
    default: str = ""
    since: str = "0.1"


GRID_KEYS = (
    GridKey("study", "a name", "The study's name: its folder under results/", "required"),
    GridKey("description", "text", "One line that describes the study"),
    GridKey(
        "extensions",
        "a list of .py files",
        "Your own flags, parts, data sets, metrics, solvers and objectives; paths are relative to "
        "the grid",
        since=AFTER,
    ),
    GridKey("base", "a mapping of keys to values", "Values that all runs share"),
    GridKey("ladder", "a mapping of steps", "Named steps; each keeps the changes of those above"),
    GridKey("variants", "a mapping of variants", "Named points, independent of one another"),
    GridKey("variants.<name>.from", "a variant or step", "The variant or step it starts from"),
    GridKey(
        "variants.<name>.slurm",
        "a mapping",
        "Resources that differ from the study's; in ladder steps too",
    ),
    GridKey(
        "leave_one_out",
        "a list of flags, or a mapping",
        "A variant with all flags or values, and for each a variant without it",
    ),
    GridKey("grid", "a mapping of keys to lists or ranges", "Axes, of which all combinations run"),
    GridKey(
        "zip",
        "a mapping of keys to lists or ranges, or a list of such mappings",
        "Lists whose values are paired in order, as one axis",
    ),
    GridKey("exclude", "a list of conditions", "Combinations that are left out"),
    GridKey("exclude.reason", "text", "The reason, which the plan prints"),
    GridKey("exclude.variant", "a name or a list of names", "The variants or steps to exclude"),
    GridKey("exclude.seed", "a number, a comparison or a list", "The seeds to exclude"),
    GridKey(
        "tune",
        "a mapping of keys to lists or ranges",
        "Axes to tune: each variant is compared at its own best point",
    ),
    GridKey(
        "tune.seeds",
        "a number from 1 to 1,000",
        "Seeds on which each variant's point is chosen, before any comparison",
        "none: chosen on the other seeds of the comparison",
        AFTER,
    ),
    GridKey("seeds", "a number, a list or a mapping", "The seeds of every variant", "1"),
    GridKey(
        "seeds.looks",
        "a rising list, from 3 on",
        "Numbers of seeds after which comparisons are decided, or continued if undecided",
        "none: one look at the end",
        AFTER,
    ),
    GridKey("seeds.from", "a number", "The first seed, with looks", "0", AFTER),
    GridKey(
        "fraction",
        "main, two-way, all, or a number of variants",
        "The part of a crossed grid that is run",
        "none: the whole grid",
        AFTER,
    ),
    GridKey(
        "metric",
        "a metric's label",
        "The metric that comparisons are decided by",
        "the distance that most runs have",
        AFTER,
    ),
    GridKey(
        "margin",
        "a share such as 5 %, or a number in the metric's unit",
        "The smallest change that matters",
        "5 % of a ratio; none for differences",
        AFTER,
    ),
    GridKey("slurm", "a mapping", "Resources of the runs on a cluster: the keys of the next table"),
)

TOP_KEYS = tuple(key.name for key in GRID_KEYS if "." not in key.name)
