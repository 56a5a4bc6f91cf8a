"""How fast runs trained."""

from __future__ import annotations

import pandas as pd

from analysis import comparison
from analysis.study import NothingToShow, Study


def of_runs(study: Study) -> pd.DataFrame:
    """One row a run: ``run``, ``variant``, ``seed``, ``images_per_s``, the median over logged rows.

    A run's first row is left out where there are others: it has the warm-up in it. Of tuned
    variants, those at their best point.

    Raises:
        NothingToShow: before a run has logged its speed.
    """
    shown = study.metrics["run"].isin(comparison.chosen(study)["run"])
    rows = study.metrics.loc[shown, ["run", "variant", "seed", "images_per_s"]].dropna()
    if rows.empty:
        raise NothingToShow("no run has logged its speed yet")
    warm = rows.groupby("run").cumcount() > 0
    rows = rows[warm | (rows.groupby("run")["run"].transform("size") == 1)]
    keys = ["run", "variant", "seed"]
    return rows.groupby(keys, observed=True, sort=False)["images_per_s"].median().reset_index()
