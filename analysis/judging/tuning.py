"""The best point of each variant on the tune axes, chosen without the compared distances.

The lowest of several noisy distances is below the true distance of the best point, and this bias
grows with the number of points. Each seed's distance is therefore taken at the point that is best
on the *other* seeds, so that more tuning is no advantage.

The seeds' choices depend on each other. If both variants are tuned and all points are equal,
plain 95 % t intervals of such differences cover the truth in 91 % (3 seeds × 3 points), 88 %
(5 × 3), 79 % (10 × 5) and 76 % (10 × 10) of studies. The intervals are widened (:func:`widening`)
to cover it in 95 %. If one point is clearly best, they then cover it in 97 % and more.

If the grid has separate tuning seeds, the points were chosen on these before any comparison
(`mpdit.decisions.racing`), and the intervals need no widening.

A variant with one seed is tuned on other sample sets of its runs (repeats). Without repeats it is
tuned on the compared distance itself, and :func:`remarks` warns about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cache

import numpy as np
import pandas as pd

from analysis.judging import distances, levels, statistics
from analysis.study import NothingToShow, Study, once

APART, SEEDS, SAMPLES, ITSELF = (
    "seeds of its own", "other seeds", "other samples", "the same samples",
)  # fmt: skip
"""The data on which a point was chosen."""

SIMULATED = 5_000
"""Number of simulated studies, enough for a quantile that is accurate to a few percent."""


def leave_one_out(values: np.ndarray) -> list[int | None]:
    """Choose for each seed the point that is best on the other seeds.

    Args:
        values: seeds × points, NaN for a missing distance. Smaller is better.

    Returns:
        for each seed, the point with the lowest mean over the other seeds. Only points that the
        seed itself has are considered, and of these the points with the most other seeds. None if
        there is no such point.
    """
    there = ~np.isnan(values)
    chosen: list[int | None] = []
    for seed in range(len(values)):
        counts = np.where(there[seed], np.delete(there, seed, axis=0).sum(axis=0), 0)
        if not counts.any():
            chosen.append(None)
            continue
        sums = np.nansum(np.delete(values, seed, axis=0), axis=0)
        means = np.where(counts == counts.max(), sums / np.maximum(counts, 1), np.inf)
        chosen.append(int(means.argmin()))
    return chosen


@cache
def widening(seeds: int, points: int, others: int) -> float:
    """Return the factor that widens Student's interval of a difference between tuned variants.

    With this factor the interval covers the truth in 95 % of simulated studies whose points are
    all equal, the worst case. It is at least 1.

    Args:
        seeds: the number of seeds at each point of both variants.
        points: the number of points of one variant.
        others: the number of points of the other variant; 0 for the interval of one mean.
    """
    if seeds < 2 or max(points, others) < 2:
        return 1.0
    noise = np.random.default_rng(0)
    found = np.zeros((SIMULATED, seeds))
    for count, sign in ((points, 1), (others, -1)):
        if count:
            found += sign * _simulated(noise, seeds, count)
    t = np.abs(found.mean(axis=1)) * seeds**0.5 / found.std(axis=1, ddof=1)
    within = float(np.quantile(t, statistics.CONFIDENCE))
    return max(1.0, within / statistics.t_quantile(seeds))


def _simulated(noise: np.random.Generator, seeds: int, points: int) -> np.ndarray:
    """Simulate values (`SIMULATED` × seeds) of a variant whose points are equal, each at the point
    that is best on the other seeds."""
    values = noise.normal(size=(SIMULATED, seeds, points))
    best = (values.sum(axis=1, keepdims=True) - values).argmin(axis=2)
    found: np.ndarray = np.take_along_axis(values, best[..., None], axis=2)[..., 0]
    return found


def seeds_apart(study: Study) -> frozenset[int]:
    """Return the separate tuning seeds; empty if the points are chosen on the compared seeds."""
    return frozenset(study.declared.get("tuning") or ())


@once
def choose(study: Study) -> pd.DataFrame:
    """Return the run that represents each variant and seed, one row each.

    ``run``, ``variant``, ``seed``, ``value`` (its distance), ``point``, ``by`` (the data on which
    the point was chosen; empty without a choice), and ``points`` (the number of points to choose
    from).

    Raises:
        NothingToShow: before the first evaluation.
    """
    table = distances.of_runs(study)
    if apart := seeds_apart(study):
        table = table[~table["seed"].isin(apart)]
        if table.empty:
            raise NothingToShow("tuning is not over: no run of a comparison has been evaluated")
        return table.assign(by=APART, points=1)
    if not study.tune:
        return table.assign(by="", points=1)
    repeated = distances.repeats(study).groupby("run")["value"].mean()
    picked = [
        _choose(runs, repeated) for _, runs in table.groupby("variant", observed=True, sort=False)
    ]
    return pd.concat(picked, ignore_index=True)


def _choose(runs: pd.DataFrame, repeated: pd.Series[float]) -> pd.DataFrame:
    """Choose among one variant's runs (:func:`choose`); ``repeated``: run → mean of its repeats."""
    if runs["point"].nunique() == 1:
        return runs.assign(by="", points=1)
    values = runs.pivot(index="seed", columns="point", values="value")
    values = values[runs["point"].unique()]  # among equals, the grid's first is chosen
    found = dict(zip(values.index, leave_one_out(values.to_numpy()), strict=True))
    kept = []
    for seed, of_seed in runs.groupby("seed", sort=True):
        index = found[seed]
        if index is not None:
            row, by = of_seed[of_seed["point"] == values.columns[index]], SEEDS
        elif of_seed["run"].isin(repeated.index).all():
            others = of_seed["run"].map(repeated).astype(float)
            row, by = of_seed.loc[[others.idxmin()]], SAMPLES
            row = row.assign(value=row["own"])  # the other samples have chosen
        else:
            row, by = of_seed.loc[[of_seed["value"].idxmin()]], ITSELF
        kept.append(row.assign(by=by if len(of_seed) > 1 or by == SEEDS else ""))
    return pd.concat(kept).assign(points=len(values.columns))


@once
def curve(study: Study) -> pd.DataFrame:
    """Return the tuning curve, one row per variant and point of the tune axes.

    ``variant``, ``point``, a column per tune axis (``tune.train.learning_rate``; text if a value is
    not a number), ``mean``, ``low``, ``high`` (over seeds, 95 % t interval), ``seeds``;
    ``best`` (the lowest mean among the points with the most seeds); ``chosen`` (the number of
    seeds for which the other seeds chose this point).

    Raises:
        NothingToShow: when the study tunes nothing, or before the first evaluation.
    """
    if not study.tune:
        raise NothingToShow("the study tunes nothing")
    axes = list(study.tune)
    values = {key: levels.positions(study.runs[key]) for key in axes}
    runs = distances.of_runs(study).merge(study.runs[["run"]].assign(**values), on="run")
    if apart := seeds_apart(study):
        runs = runs[runs["seed"].isin(apart)]
    picked = pd.Series(dtype=int)
    with suppress(NothingToShow):  # before the first comparison
        picked = choose(study).groupby(["variant", "point"], observed=True).size()
    rows = []
    for (variant, point), group in runs.groupby(["variant", "point"], observed=True, sort=False):
        average = statistics.mean(group["value"])
        rows.append(
            {
                "variant": variant,
                "point": point,
                **group[axes].iloc[0].to_dict(),
                "mean": average.value,
                "low": average.low,
                "high": average.high,
                "seeds": average.n,
                "best": False,  # see below
                "chosen": int(picked.get((variant, point), 0)),
            }
        )
    frame = pd.DataFrame(rows).astype({"variant": study.runs["variant"].dtype})
    frame = frame.sort_values("variant", kind="stable", ignore_index=True)
    by_variant = frame.groupby("variant", observed=True)
    whole = frame["seeds"] == by_variant["seeds"].transform("max")
    lowest = frame["mean"].where(whole).groupby(frame["variant"], observed=True).idxmin()
    return frame.assign(best=frame.index.isin(lowest))


def best(study: Study) -> pd.Series[str]:
    """Return each variant's best point on all its seeds, for figures but not for comparisons.

    Raises:
        NothingToShow: when the study tunes nothing, or before the first evaluation.
    """
    points = curve(study)
    return points[points["best"]].set_index("variant")["point"]


def remarks(study: Study) -> list[str]:
    """Describe how the points were chosen, and problems of the choice."""
    try:
        points, picked = curve(study), choose(study)
    except NothingToShow:
        return []
    axes = ", ".join(key.removeprefix("tune.") for key in study.tune)
    said = []
    for by, words in _HOW.items():
        rows = picked[picked["by"] == by]
        if variants := list(rows["variant"].astype(str).unique()):
            widest = max(_widenings(rows)) if by == SEEDS else 1.0
            wider = f"; intervals of differences are therefore up to {widest:.2g} times as wide"
            said.append(f"{axes} of {_listed(variants, study)} {words}{wider * (widest > 1)}")
    of_whom: dict[str, list[str]] = {}
    for variant, words in (*_not_yet(study, points, axes), *_at_an_edge(study, points)):
        of_whom.setdefault(words, []).append(variant)
    return said + [f"{_listed(names, study)}: {words}" for words, names in of_whom.items()]


_HOW = {
    APART: "was chosen on separate seeds, which are not used in comparisons",
    SEEDS: "was chosen for each seed on the other seeds",
    SAMPLES: "was chosen on other samples of the same models: with one seed, a point may be chosen "
    "because of luck in training",
    ITSELF: "was chosen on the compared distances themselves, because there are neither other "
    "seeds nor repeats: these distances are too low",
}


def _widenings(picked: pd.DataFrame) -> Iterator[float]:
    """Yield for each variant the widening of its difference to a variant with as many points."""
    for _, rows in picked.groupby("variant", observed=True):
        yield widening(len(rows), *[int(rows["points"].iloc[0])] * 2)


def _listed(variants: list[str], study: Study) -> str:
    if len(variants) == len(study.variants):
        return "every variant"
    return ", ".join(variants) if len(variants) < 5 else f"{len(variants)} variants"


def _not_yet(study: Study, points: pd.DataFrame, axes: str) -> Iterator[tuple[str, str]]:
    """Yield the variants that lack a distance at some points, each with a remark."""
    there = points["variant"].astype(str).value_counts(sort=False)
    planned = distances.points(study).groupby(study.runs["variant"].astype(str)).nunique()
    failed = _failed_points(study)
    for variant, count in there.items():
        of, lost = planned[str(variant)], failed.get(str(variant), 0)
        if lost:
            yield str(variant), f"every run failed at {lost} of {of} points of {axes}"
        if count + lost < of:
            words = f"evaluated at {count} of {of} points of {axes}; the best may still be missing"
            yield str(variant), words


def _failed_points(study: Study) -> dict[str, int]:
    """Return variant → the number of its points at which every run diverged."""
    runs = study.runs.assign(
        point=distances.points(study), variant=study.runs["variant"].astype(str)
    )
    lost = runs["diverged"].groupby([runs["variant"], runs["point"]]).all()
    return {str(variant): int(count) for variant, count in lost.groupby(level=0).sum().items()}


def _at_an_edge(study: Study, points: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the variants whose best point is the lowest or highest value tried, with a remark."""
    for row in points[points["best"]].to_dict("records"):
        tried = points[points["variant"] == row["variant"]]
        ends = [
            f"{key.removeprefix('tune.')} {levels.text(row[key])}"
            for key in study.tune
            if pd.api.types.is_numeric_dtype(tried[key])
            and tried[key].nunique() > 1
            and row[key] in (tried[key].min(), tried[key].max())
        ]
        if ends:
            yield (
                str(row["variant"]),
                f"the best point is at the edge of the tried range ({', '.join(ends)}); a better "
                "one may lie outside it",
            )
