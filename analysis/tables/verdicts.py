"""The verdict of every comparison, and the further seeds that would settle the open ones."""

from __future__ import annotations

import pandas as pd

from analysis.judging import distances, plans
from analysis.study import NothingToShow, Study
from analysis.tables.cells import DASH, printer
from analysis.tables.compare import CHANGES, CORRECTED
from analysis.tables.table import table


@table(
    title="Verdicts",
    caption=f"{CHANGES} {CORRECTED} Equivalent: the interval lies within the margin. More seeds: "
    "further seeds for the variant and for its baseline (in a crossed grid, for every variant) "
    "that would settle the comparison with 80 % probability. Cost: the cost of these seeds, "
    "estimated from the study's own runs.",
    text=printer(
        {
            "variant": "variant",
            "against": "baseline",
            "verdict": "verdict",
            "change of {metric}": "effect",
            "p": "p",
            "seeds": "seeds",
            "failed": lambda row: str(row["failed"] or DASH),
            "more seeds": lambda row: (
                DASH if pd.isna(row["more_seeds"]) else f"{int(row['more_seeds']):,}"
            ),
            "cost": lambda row: plans.hours_text(
                None if pd.isna(row["cost"]) else row["cost"], row["unit"]
            ),
        },
        maybe=["failed", "more seeds", "cost"],
    ),
    place=5,
)
def verdicts(study: Study) -> pd.DataFrame:
    """Return one row per comparison: the columns of ``mpdit answers --json``, with the metric and
    the cost's unit."""
    rows = plans.as_json(study)
    if not rows:
        raise NothingToShow("there are no two variants to compare")
    table = pd.DataFrame(rows).assign(metric=distances.title(study), unit=plans.unit(study))
    numbers = ["effect", "low", "high", "p", "more_seeds", "cost"]
    return table.astype(dict.fromkeys(numbers, float))
