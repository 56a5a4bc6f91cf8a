"""The tables that compare variants: one row per variant, compared with its baseline.

=====================  ============================================================================
variant, baseline      names; the baseline's own row has an empty effect
model                  its size, ``DiT-S/2``
metric, better         the distance's label; its better direction (lower or higher)
mean, half_width       over seeds; half width of the 95 % t interval (NaN for one seed)
seeds                  the number of seeds in the mean
limit, limit_half      the same for the distance at N → ∞ (NaN if it was not computed); for one
                       seed, the half width comes from the limit's own standard error
limit_seeds            the number of seeds in the limit's mean
sampling_sd            standard deviation between sample sets of one model (NaN without repeats)
floor, floor_metric    the distance of real held-out images, and its label; mean over seeds
effect, low, high      the mean divided by (``scale`` ratio) or minus (difference) the baseline's,
                       with the interval that is simultaneous for all comparisons of the study
p                      corrected for all comparisons of the study
verdict, failed        `mpdit.decisions.family`; the failed runs of the variant and its baseline
parameters             trainable parameters
relative_size          parameters divided by the baseline's, minus one
train_seconds          mean over seeds of the training time
published_distance     the paper's distance for this model, data and metric; NaN without one
published_relative     the paper's relative difference
published_parameters   the official code's number of parameters
published_source       the sources of the three
tuned                  the chosen point of the tune axes; only if the study has tune axes
=====================  ============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from scipy.special import stdtrit

from analysis.judging import answers, comparison, distances, literature, paired, statistics
from analysis.study import NothingToShow, Study, once
from analysis.tables import cells
from analysis.tables.cells import DASH
from analysis.tables.table import table
from mpdit.decisions.comparisons import ComparisonGroup
from mpdit.decisions.family import Decision, Rules

MEAN = "Mean over seeds ± half the width of its 95 % t interval."
CHANGES = (
    "Change: difference of the means, or for positive distances the change of the geometric mean "
    "in %, with an interval that is corrected for all comparisons of the study."
)
CORRECTED = "p: corrected for all comparisons of the study; below 0.05 if the interval excludes 0."
CAPTION = f"{MEAN} {CHANGES} {CORRECTED}"


_PUBLISHED = {
    f"{{metric}}, {literature.PAPER}": "published_distance",
    f"Δ, %, {literature.PAPER}": "published_relative",
    f"parameters, {literature.CODE}": "published_parameters",
}
_text = cells.printer(
    {
        "variant": "variant",
        "{metric}{arrow}": "mean",
        "N → ∞": lambda row: _limit(row),
        "seeds": "seeds",
        "change": "effect",
        "p": "p",
        "verdict": "verdict",
        "parameters": "parameters",
        "train time": "train_seconds",
        **_PUBLISHED,
    },
    maybe=["N → ∞", "p", *_PUBLISHED],
)


def _limit(row: cells.Numbers) -> str:
    """Return the limit as text, with its number of seeds if these are fewer than the distance's."""
    text = cells.number(row["limit"], cells.decimals([row["mean"]]), row["limit_half"])
    return f"{text} (n = {row['limit_seeds']})" if 0 < row["limit_seeds"] < row["seeds"] else text


def pretty(table: pd.DataFrame) -> pd.DataFrame:
    """Return a comparing table as text, with printed headings."""
    text = _text(table)
    text.loc[table["variant"] == table["baseline"], ["change", "verdict"]] = ["baseline", DASH]
    return text.assign(tuned=table["tuned"]) if "tuned" in table else text


@table(title="Variants with the same conditioning", caption=CAPTION, text=pretty, place=20)
def ladder(study: Study) -> pd.DataFrame:
    """Compare the variants with the first variant's conditioning (Table 1 of the paper)."""
    return _ladder(study).copy()


@once
def _ladder(study: Study) -> pd.DataFrame:
    return _compare(study, comparison.ladder(study))


@table(title="Variants that differ in conditioning", caption=CAPTION, text=pretty, place=30)
def modulation(study: Study) -> pd.DataFrame:
    """Compare variants with equal flags that differ in conditioning (Table 2 of the paper)."""
    return _compare(study, comparison.modulation(study))


@table(title="Other variants", caption=CAPTION, text=pretty, place=40)
def others(study: Study) -> pd.DataFrame:
    """Compare the variants in neither ladder nor modulation with the study's first variant."""
    return _compare(study, comparison.others(study))


def _compare(study: Study, groups: list[ComparisonGroup]) -> pd.DataFrame:
    table, metric = comparison.distances(study), distances.title(study)
    if not groups:
        raise NothingToShow("no variants of this kind")
    found, rules = answers.family(study).decisions, distances.rules(study)
    runs = comparison.chosen(study)
    seconds = runs[runs["trained"]].groupby("variant", observed=False)["train_seconds"].mean()
    parameters = runs.groupby("variant", observed=False)["parameters"].first()
    companions = _companions(study)
    by_variant = {str(name): rows for name, rows in table.groupby("variant", observed=True)}
    designs: dict[Any, Any] = study.designs.to_dict("index")
    rows = []
    for group in groups:
        for variant in group.variants:
            mine = by_variant.get(variant, table.iloc[:0])
            row = {
                "variant": variant,
                "baseline": group.baseline,
                "model": designs[variant]["model"],
                "metric": metric,
                "better": "lower" if rules.lower_is_better else "higher",
                **cells.averaged(paired.average(mine, variant)),
                **companions(variant),
                **columns_of(found.get((variant, group.baseline)), rules),
                "parameters": parameters[variant],
                "relative_size": parameters[variant] / parameters[group.baseline] - 1,
                "train_seconds": seconds[variant],
                **_published(designs[variant], designs[group.baseline], metric),
            }
            if study.tune:
                row["tuned"] = _points(mine["tuned"])
            rows.append(row)
    return pd.DataFrame(rows)


def _points(tuned: pd.Series[str]) -> str:
    """Return the chosen point; if seeds chose several, each with its number of seeds."""
    counts = tuned.value_counts(sort=False)
    if len(counts) < 2:
        return next(iter(counts.index), DASH)
    return ", ".join(f"{point} ({count})" for point, count in counts.items())


def _companions(study: Study) -> Callable[[str], dict[str, Any]]:
    """Return a function: variant → the columns of limit, sampling SD and floor."""
    limits, floors = (
        {str(name): rows for name, rows in found.groupby("variant", observed=True)}
        for found in (comparison.companions(study, role) for role in ("limit", "floor"))
    )
    spread = comparison.sampling_sd(study)
    nothing = study.evaluations.iloc[:0]

    def of(variant: str) -> dict[str, Any]:
        limit, floor = (found.get(variant, nothing) for found in (limits, floors))
        names = ("limit", "limit_half", "limit_seeds")
        return {
            **cells.averaged(_mean_limit(limit), names),
            "sampling_sd": float(spread.get(variant, math.nan)),
            "floor": statistics.mean(floor["value"]).value,
            "floor_metric": next(iter(floor["metric"]), DASH),
        }

    return of


def _mean_limit(limits: pd.DataFrame) -> statistics.Estimate:
    """Return the mean over seeds; for one seed, with an interval from the limit's own standard
    error (three degrees of freedom)."""
    found = statistics.mean(limits["value"].astype(float))
    if found.n != 1 or "standard_error" not in limits:
        return found
    half = float(stdtrit(3, 0.975)) * float(limits["standard_error"].iloc[0])
    return statistics.Estimate(found.value, found.value - half, found.value + half, 1)


def columns_of(found: Decision | None, rules: Rules) -> dict[str, Any]:
    """Return a decision as columns, which are empty without a decision."""
    numbers = ("effect", "low", "high", "p")
    return {
        **{name: math.nan if found is None else getattr(found, name) for name in numbers},
        "scale": rules.scale,
        "verdict": DASH if found is None else found.verdict,
        "failed": 0 if found is None else found.failed + found.baseline_failed,
    }


def _published(
    run: Mapping[str, Any], baseline: Mapping[str, Any], metric: str
) -> dict[str, float | str]:
    row = literature.ladder(run) if metric == literature.METRIC else None
    distance = row and row.distance.get(run["model"])
    relative = row.relative if row and not baseline["flags"] else None
    parameters = literature.parameters(run)
    sources = {literature.PAPER: distance or relative, literature.CODE: parameters}
    return {
        "published_distance": distance or math.nan,
        "published_relative": relative or math.nan,
        "published_parameters": parameters or math.nan,
        "published_source": ", ".join(source for source, value in sources.items() if value),
    }
