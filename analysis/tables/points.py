"""The tuning curves: the distance of each variant at every point of the tune axes."""

from __future__ import annotations

import pandas as pd

from analysis.judging.tuning import curve
from analysis.study import Study
from analysis.tables.cells import DASH, printer
from analysis.tables.compare import MEAN
from analysis.tables.table import table


@table(
    title="Tuning curves",
    caption=f"{MEAN} Best: the best point on all seeds. Chosen for: the number of seeds for which "
    "the other seeds chose this point.",
    text=printer(
        {
            "variant": "variant",
            "point": "point",
            "distance ↓": "mean",
            "seeds": "seeds",
            "best": lambda row: "best" if row["best"] else DASH,
            "chosen for": lambda row: f"{row['chosen']} seed{'s' if row['chosen'] != 1 else ''}",
        }
    ),
    place=90,
)
def tuning(study: Study) -> pd.DataFrame:
    """Return the tuning curve (`analysis.judging.tuning.curve`) with ``half_width``."""
    points = curve(study)
    return points.assign(half_width=(points["high"] - points["low"]) / 2)
