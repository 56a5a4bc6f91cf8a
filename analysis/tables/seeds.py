"""What the seeds allow to conclude of each comparison, and how many would allow more."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.judging import comparison, distances, paired, statistics
from analysis.study import NothingToShow, Study
from analysis.tables.cells import DASH, Numbers, bounds, printer
from analysis.tables.compare import CORRECTED, DIFFERENCES, columns_of
from analysis.tables.table import table

IMPROVEMENT = ("improvement", "improvement_low", "improvement_high")


def _chance(row: Numbers) -> str:
    value, low, high = (row[name] for name in IMPROVEMENT)
    return DASH if math.isnan(value) else f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _seeds(row: Numbers) -> str:
    needed = row["seeds_needed"]
    if math.isnan(needed):
        return DASH
    return f"{needed:,.0f}" if needed < 10_000 else "> 10,000"


@table(
    title="What the seeds allow to conclude",
    caption=f"{DIFFERENCES} {CORRECTED} P(better): the chance that a run of the variant is better "
    "than one of the other, with Newcombe's 95 % interval. Detectable Δ: the true difference that "
    "these seeds find with 80 % power. Seeds for this Δ: how many find the observed difference "
    "with that power.",
    text=printer(
        {
            "variant": "variant",
            "against": "baseline",
            "Δ {metric}": "difference",
            "seeds": "pairs",
            "p": "p",
            "p, Holm": "p_holm",
            "P(better)": _chance,
            "detectable Δ": "detectable",
            "seeds for this Δ": _seeds,
        }
    ),
    place=60,
)
def evidence(study: Study) -> pd.DataFrame:
    """One row a comparison of a variant with its baseline.

    ``variant``, ``baseline``, ``metric``; ``difference``, ``low``, ``high``, ``relative``,
    ``…_low``, ``…_high``, ``pairs``, ``p``, ``p_holm`` (as in the comparing tables);
    ``sd`` (of the paired differences); ``improvement``, ``…_low``, ``…_high`` (the chance that a
    run of the variant is better than one of the baseline, Newcombe's interval); ``detectable``
    (the true difference that as many seeds find with 80 % power), ``seeds_needed`` (to find a
    true difference as large as the observed one).
    """
    table, metric = comparison.distances(study), distances.title(study)
    rows: list[dict[str, Any]] = []
    for (variant, baseline), difference in comparison.differences(study).items():
        values, others = paired.paired(table, variant, baseline)
        sd = float((values - others).std())
        found = statistics.probability_of_improvement(
            *(paired.values(table, name) for name in (variant, baseline))
        )
        rows.append(
            {
                "variant": variant,
                "baseline": baseline,
                "metric": metric,
                **columns_of(difference),
                "sd": sd,
                **bounds(found, IMPROVEMENT),
                "detectable": statistics.detectable_difference(sd, len(values)),
                "seeds_needed": statistics.seeds_needed(difference.absolute.value, sd),
            }
        )
    if not rows:
        raise NothingToShow("there are no two variants to compare")
    return pd.DataFrame(rows)
