"""Each variant at its own best point of the tune axes, chosen without a look at what is compared.

The lowest of several noisy distances is lower than the best point's true one, and the more so the
more points there are. So a seed's distance is taken at the point that is best by the *other* seeds:
a variant gains nothing by having been tuned more.

But the seeds' choices hang together. Where both variants are tuned and all points are alike, plain
95 % t intervals of such differences hold the truth in 91 % (3 seeds × 3 points), 88 % (5 × 3), 79 %
(10 × 5) and 76 % (10 × 10) of studies. They are therefore widened (:func:`widening`) until they do
so in 95 %; where one point is clearly best, they then hold it in 97 % and more.

A variant with one seed is tuned on other sample sets of its runs (repeats) where it has them. Where
it has not, on the very distance that is compared, and :func:`remarks` says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from analysis.judging import distances, levels, statistics
from analysis.study import NothingToShow, Study

SEEDS, SAMPLES, ITSELF = "other seeds", "other samples", "the same samples"
"""By what a point was chosen."""

SIMULATED = 5_000
"""Studies. Their quantile is known to a few percent."""


def leave_one_out(values: np.ndarray) -> list[int | None]:
    """For each seed the point that is best by the others.

    Args:
        values: seeds × points, NaN where there is no distance. Smaller is better.

    Returns:
        Of the points that the seed has and that most of the other seeds have, the one with the
        lowest mean over the others; None where there is none.
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
    """How much wider than Student's an interval of :func:`leave_one_out`'s differences must be.

    So that it holds the truth in 95 % of studies where all points are alike, the worst case, found
    by simulation. At least 1; of complete tables of ``seeds``, one variant's with so many
    ``points`` and the other's with so many ``others`` (0: of the one variant's mean).
    """
    if seeds < 2 or max(points, others) < 2:
        return 1.0
    noise = np.random.default_rng(0)
    found = np.zeros((SIMULATED, seeds))
    for count, sign in ((points, 1), (others, -1)):
        if count:
            values = noise.normal(size=(SIMULATED, seeds, count))
            best = (values.sum(axis=1, keepdims=True) - values).argmin(axis=2)
            found += sign * np.take_along_axis(values, best[..., None], axis=2)[..., 0]
    t = np.abs(found.mean(axis=1)) * seeds**0.5 / found.std(axis=1, ddof=1)
    within = float(np.quantile(t, statistics.CONFIDENCE))
    return max(1.0, within / statistics.t_quantile(seeds))


def choose(study: Study) -> pd.DataFrame:
    """One row a variant and seed: the run that stands for it.

    ``run``, ``variant``, ``seed``, ``value`` (its distance), ``point``, ``by`` (how the point was
    chosen; empty where there was no choice), and ``points`` (among how many).

    Raises:
        NothingToShow: before the first evaluation.
    """
    table = distances.of_runs(study)
    if not study.tune:
        return table.assign(by="", points=1)
    repeated = distances.repeats(study).groupby("run")["value"].mean()
    picked = [
        _choose(runs, repeated) for _, runs in table.groupby("variant", observed=True, sort=False)
    ]
    return pd.concat(picked, ignore_index=True)


def _choose(runs: pd.DataFrame, repeated: pd.Series[float]) -> pd.DataFrame:
    """Of one variant's runs."""
    if runs["point"].nunique() == 1:
        return runs.assign(by="", points=1)
    values = runs.pivot(index="seed", columns="point", values="value")
    values = values[runs["point"].unique()]  # of equals the grid's first
    found = dict(zip(values.index, leave_one_out(values.to_numpy()), strict=True))
    kept = []
    for seed, of_seed in runs.groupby("seed", sort=True):
        index = found[seed]
        if index is not None:
            row, by = of_seed[of_seed["point"] == values.columns[index]], SEEDS
        elif of_seed["run"].isin(repeated.index).all():
            others = of_seed["run"].map(repeated).astype(float)
            row, by = of_seed.loc[[others.idxmin()]], SAMPLES
        else:
            row, by = of_seed.loc[[of_seed["value"].idxmin()]], ITSELF
        kept.append(row.assign(by=by if len(of_seed) > 1 or by == SEEDS else ""))
    return pd.concat(kept).assign(points=len(values.columns))


def curve(study: Study) -> pd.DataFrame:
    """The tuning curve, one row a variant and point of the tune axes.

    ``variant``, ``point``, a column a tune axis (``tune.train.learning_rate``; text where not all
    values are numbers), ``mean``, ``low``, ``high`` (over seeds, 95 % t interval), ``seeds``;
    ``best`` (the lowest mean of the points that
    most seeds have); ``chosen`` (for how many seeds it was chosen by the others).

    Raises:
        NothingToShow: when the study tunes nothing, or before the first evaluation.
    """
    if not study.tune:
        raise NothingToShow("the study tunes nothing")
    axes = list(study.tune)
    values = {key: levels.positions(study.runs[key]) for key in axes}
    runs = distances.of_runs(study).merge(study.runs[["run"]].assign(**values), on="run")
    picked = choose(study).groupby(["variant", "point"], observed=True).size()
    rows: list[dict[Any, Any]] = []
    for variant, of_variant in runs.groupby("variant", observed=True, sort=False):
        points: list[dict[Any, Any]] = []
        for point, group in of_variant.groupby("point", sort=False):
            average = statistics.mean(group["value"])
            points.append(
                {
                    "variant": variant,
                    "point": point,
                    **group[axes].iloc[0].to_dict(),
                    "mean": average.value,
                    "low": average.low,
                    "high": average.high,
                    "seeds": average.n,
                    "best": False,
                    "chosen": int(picked.get((variant, point), 0)),
                }
            )
        most = max(point["seeds"] for point in points)
        whole = [point for point in points if point["seeds"] == most]
        min(whole, key=lambda point: point["mean"])["best"] = True
        rows += points
    frame = pd.DataFrame(rows)
    frame["variant"] = pd.Categorical(frame["variant"], study.variants, ordered=True)
    return frame


def best(study: Study) -> pd.Series[str]:
    """Each variant's best point by all its seeds: for pictures, not for comparing.

    Raises:
        NothingToShow: when the study tunes nothing, or before the first evaluation.
    """
    points = curve(study)
    return points[points["best"]].set_index("variant")["point"]


def remarks(study: Study) -> list[str]:
    """How the points were chosen, and what is wrong with a choice, in words."""
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
            wider = f"; intervals of differences are up to {widest:.2g} times as wide for it"
            said.append(f"{axes} of {_listed(variants, study)} {words}{wider * (widest > 1)}")
    of_whom: dict[str, list[str]] = {}
    for variant, words in (*_not_yet(study, points, axes), *_at_an_edge(study, points)):
        of_whom.setdefault(words, []).append(variant)
    return said + [f"{_listed(names, study)}: {words}" for words, names in of_whom.items()]


def _not_yet(study: Study, points: pd.DataFrame, axes: str) -> Iterator[tuple[str, str]]:
    """The variants that have no distance at some points, and what is said of them."""
    there = points["variant"].astype(str).value_counts(sort=False)
    planned = distances.points(study).groupby(study.runs["variant"].astype(str)).nunique()
    for variant, count in there.items():
        of = int(planned[str(variant)])
        if count < of:
            words = f"a distance at {count} of {of} points of {axes}, the best may be yet to come"
            yield str(variant), words


def _widenings(picked: pd.DataFrame) -> Iterator[float]:
    """Of the difference between each variant and another one like it."""
    for _, rows in picked.groupby("variant", observed=True):
        yield widening(len(rows), *[int(rows["points"].iloc[0])] * 2)


_HOW = {
    SEEDS: "is for each seed what is best by the other seeds",
    SAMPLES: "is what is best by other samples of the same models: luck in training, of one seed, "
    "may pass for a better value",
    ITSELF: "is what is best by the very distances that are compared, for want of other seeds and "
    "of repeats: they are too low",
}


def _listed(variants: list[str], study: Study) -> str:
    if len(variants) == len(study.variants):
        return "every variant"
    return ", ".join(variants) if len(variants) < 5 else f"{len(variants)} variants"


def _at_an_edge(study: Study, points: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """The variants whose best point is the least or the greatest number tried on an axis, and what
    is said of them."""
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
                (
                    f"the best is at the end of what was tried ({', '.join(ends)}), something "
                    "better may lie beyond"
                ),
            )
