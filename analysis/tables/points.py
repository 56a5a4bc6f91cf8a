"""The tuning curves: how each variant does at every point of the tune axes."""

from __future__ import annotations

import pandas as pd

from analysis.judging.tuning import curve
from analysis.study import Study
from analysis.tables.cells import DASH, decimals, number
from analysis.tables.compare import MEAN
from analysis.tables.table import table


def pretty(curve: pd.DataFrame) -> pd.DataFrame:
    """The tuning curve as text for people."""
    places = decimals(curve["mean"])
    return pd.DataFrame(
        {
            "variant": row["variant"],
            "point": row["point"],
            "distance ↓": number(row["mean"], places, (row["high"] - row["low"]) / 2),
            "seeds": str(row["seeds"]),
            "best": "best" if row["best"] else DASH,
            "chosen for": f"{row['chosen']} seed{'s' if row['chosen'] != 1 else ''}",
        }
        for row in curve.to_dict("records")
    )


@table(
    title="Tuning curves",
    caption=f"{MEAN} Best: on all seeds. Chosen for: the seeds for which the other seeds chose it.",
    text=pretty,
    place=90,
)
def tuning(study: Study) -> pd.DataFrame:
    """The tuning curve (`analysis.judging.tuning.curve`).

    Raises:
        NothingToShow: when the study tunes nothing, or before the first evaluation.
    """
    return curve(study)
