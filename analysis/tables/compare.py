"""The comparing tables: one row a variant, compared with its baseline.

=====================  ============================================================================
variant, baseline      names; the baseline's own row has an empty difference
model                  its size, ``DiT-S/2``
metric                 the distance's own label; smaller is better
mean, half_width       over seeds; half of the 95 % t interval (NaN for one seed)
seeds                  the number of seeds in the mean
limit, limit_half      the same of the distance at N → ∞ (NaN where it was not taken)
sampling_sd            standard deviation between sample sets of one model (NaN without repeats)
floor, floor_metric    the distance of real held-out images, and its label; mean over seeds
difference, low, high  to the baseline, paired by seed, with its 95 % interval
relative, …_low/_high  the same as a fraction of the baseline's mean
pairs                  the number of seeds that both have
p, p_holm              of the paired t test; corrected for all comparisons of the study (Holm)
parameters             trainable parameters
relative_size          parameters over the baseline's, less one
train_seconds          mean over seeds of the training time
published_distance     the paper's, where it has one for this model, data and metric; else NaN
published_relative     the paper's relative difference
published_parameters   the official code's
published_source       the sources of the three
tuned                  the chosen point of the tune axes; only where there are any
=====================  ============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

from analysis.judging import comparison, distances, literature, paired, statistics
from analysis.judging.comparison import Comparison
from analysis.judging.paired import Difference
from analysis.study import NothingToShow, Study
from analysis.tables import cells
from analysis.tables.cells import DASH, DIFFERENCE, RELATIVE
from analysis.tables.table import table

MEAN = "Mean over seeds ± half of its 95 % t interval."
DIFFERENCES = (
    "Differences are paired by seed, with 95 % t intervals, widened where a variant was tuned; "
    "intervals in % are Fieller's."
)
CORRECTED = "p: paired t test, corrected for all comparisons of the study (Holm)."
CAPTION = f"{MEAN} {DIFFERENCES} {CORRECTED}"
_NOTHING = statistics.Estimate(math.nan, math.nan, math.nan, 0)
NO_DIFFERENCE = Difference(_NOTHING, _NOTHING, p=math.nan, p_holm=math.nan)
"""Of a baseline to itself."""


_PUBLISHED = {
    f"{{metric}}, {literature.PAPER}": "published_distance",
    f"Δ, %, {literature.PAPER}": "published_relative",
    f"parameters, {literature.CODE}": "published_parameters",
}
_text = cells.printer(
    {
        "variant": "variant",
        "{metric} ↓": "mean",
        "N → ∞": "limit",
        "sampling SD": "sampling_sd",
        "floor": "floor",
        "seeds": "seeds",
        "Δ to baseline": "difference",
        "Δ, %": "relative",
        "p, Holm": "p_holm",
        "parameters": "parameters",
        "size, %": lambda row: cells.minus(f"{100 * row['relative_size']:+.2f}"),
        "train time": "train_seconds",
        **_PUBLISHED,
    },
    maybe=["N → ∞", "sampling SD", "floor", "p, Holm", *_PUBLISHED],
)


def pretty(table: pd.DataFrame) -> pd.DataFrame:
    """A comparing table as text for people, under the headings that go into print."""
    text = _text(table)
    floors = table["floor_metric"].unique()
    if len(floors) == 1 and "floor" in text:
        text = text.rename(columns={"floor": f"floor@{floors[0].split('@')[1]}"})
    text.loc[table["variant"] == table["baseline"], ["Δ to baseline", "Δ, %", "size, %"]] = (
        "baseline"
    )
    return text.assign(tuned=table["tuned"]) if "tuned" in table else text


@table(title="Magnitude preservation: the ladder", caption=CAPTION, text=pretty, place=20)
def ladder(study: Study) -> pd.DataFrame:
    """The variants that share the first one's conditioning (Table 1 of the paper)."""
    return _compare(study, comparison.ladder(study))


@table(title="Conditioning: the modulations", caption=CAPTION, text=pretty, place=30)
def modulation(study: Study) -> pd.DataFrame:
    """The variants with equal flags that differ in conditioning (Table 2 of the paper)."""
    return _compare(study, comparison.modulation(study))


@table(title="Other variants", caption=CAPTION, text=pretty, place=40)
def others(study: Study) -> pd.DataFrame:
    """The variants that are in neither of the two, against the study's first."""
    return _compare(study, comparison.others(study))


def _compare(study: Study, groups: list[Comparison]) -> pd.DataFrame:
    table, metric = comparison.distances(study), distances.title(study)
    if not groups:
        raise NothingToShow("no variants of this kind")
    differences = comparison.differences(study)
    runs = comparison.chosen(study)
    seconds = runs[runs["trained"]].groupby("variant", observed=False)["train_seconds"].mean()
    parameters = runs.groupby("variant", observed=False)["parameters"].first()
    companions = _companions(study)
    designs: dict[Any, Any] = study.designs.to_dict("index")
    rows = []
    for group in groups:
        for variant in group.variants:
            average = paired.average(table, variant)
            row = {
                "variant": variant,
                "baseline": group.baseline,
                "model": designs[variant]["model"],
                "metric": metric,
                **cells.averaged(average),
                **companions(variant),
                **columns_of(differences.get((variant, group.baseline), NO_DIFFERENCE)),
                "parameters": parameters[variant],
                "relative_size": parameters[variant] / parameters[group.baseline] - 1,
                "train_seconds": seconds[variant],
                **_published(designs[variant], designs[group.baseline], metric),
            }
            if study.tune:
                row["tuned"] = _points(table["tuned"][table["variant"] == variant])
            rows.append(row)
    return pd.DataFrame(rows)


def _points(tuned: pd.Series[str]) -> str:
    """The chosen point; of several, each with the number of its seeds."""
    counts = tuned.value_counts(sort=False)
    if len(counts) < 2:
        return next(iter(counts.index), DASH)
    return ", ".join(f"{point} ({count})" for point, count in counts.items())


def _companions(study: Study) -> Callable[[str], dict[str, Any]]:
    """A variant → the limit, spread and floor beside its distance."""
    limits, floors = (comparison.companions(study, role) for role in ("limit", "floor"))
    spread = comparison.sampling_sd(study)

    def of(variant: str) -> dict[str, Any]:
        limit = statistics.mean(limits["value"][limits["variant"] == variant])
        floor = floors[floors["variant"] == variant]
        return {
            **cells.averaged(limit, ("limit", "limit_half")),
            "sampling_sd": float(spread.get(variant, math.nan)),
            "floor": statistics.mean(floor["value"]).value,
            "floor_metric": next(iter(floor["metric"]), DASH),
        }

    return of


def columns_of(found: Difference) -> dict[str, Any]:
    """Absolute and relative, with intervals, the pairs and p."""
    return {
        **cells.bounds(found.absolute, DIFFERENCE),
        **cells.bounds(found.relative, RELATIVE),
        "pairs": found.absolute.n,
        "p": found.p,
        "p_holm": found.p_holm,
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
