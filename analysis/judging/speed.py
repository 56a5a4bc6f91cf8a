"""The training speed of runs, and the runs that trained at the same time on one host."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.judging import comparison
from analysis.study import NothingToShow, Study, once


def of_runs(study: Study) -> pd.DataFrame:
    """Return one row per run: ``run``, ``variant``, ``seed``, ``images_per_s`` (a median).

    A run's first row includes the warm-up, and is left out if the run has other rows. Of a tuned
    variant, only the runs at its best point are included.

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


@once
def side_by_side(study: Study) -> set[str]:
    """Return the runs that trained while another run of the study trained on the same host.

    Each start of a run counts from its time until the next start, but at most for the run's
    training time.
    """
    starts = study.provenance[["run", "host", "time"]].astype({"run": str})
    begin = pd.to_datetime(starts["time"], utc=True)
    seconds = starts["run"].map(study.runs.set_index("run")["train_seconds"])
    end = begin + pd.to_timedelta(seconds, unit="s")
    resumed = begin.groupby(starts["run"]).shift(-1)  # NaT after a run's last start
    starts = starts.assign(begin=begin, end=end.mask(resumed < end, resumed))
    starts = starts.dropna(subset=["begin", "end"])
    found: set[str] = set()
    for _, here in starts.groupby("host"):
        runs, first, last = (here[key].to_numpy() for key in ("run", "begin", "end"))
        begun, ended = (
            np.searchsorted(np.sort(first), last),
            np.searchsorted(np.sort(last), first, side="right"),
        )
        found.update(runs[begun - ended > (first < last)])  # more than itself
    return found
