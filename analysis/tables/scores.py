"""Every metric that the runs were evaluated by, side by side."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
import pandas as pd

from analysis.judging import comparison, distances, paired
from analysis.study import NothingToShow, Study
from analysis.tables.cells import ARROWS, DASH, averaged, decimals, number
from analysis.tables.compare import MEAN
from analysis.tables.table import table


def pretty(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per variant, one column per metric; arrows show known better directions."""
    text = pd.DataFrame({"variant": table["variant"].unique()})
    for metric, rows in table.groupby("metric", sort=False):
        places = decimals(rows["mean"])
        found = {
            row["variant"]: number(row["mean"], places, row["half_width"])
            for row in rows.to_dict("records")
        }
        arrow = ARROWS.get(rows["better"].iloc[0], "")
        text[f"{metric}{arrow}"] = [found.get(variant, DASH) for variant in text["variant"]]
    return text


@table(
    title="Every metric",
    caption=f"{MEAN} ↓: lower is better, ↑: higher is better. A tuned variant is at the point that "
    "is best by the study's judged metric.",
    text=pretty,
    place=100,
)
def metrics(study: Study) -> pd.DataFrame:
    """List every metric of the runs' own samples, one row per variant and metric.

    ``variant``, ``metric`` (its label), ``better`` (lower, higher, or empty if unknown),
    ``mean``, ``half_width`` (over seeds; half width of the 95 % t interval), ``seeds``. The runs of
    a tuned variant are the same as in the comparing tables.

    Raises:
        NothingToShow: if the runs have no metric besides the one that the study is judged by.
    """
    better = distances.better(study)
    runs = comparison.distances(study) if study.tune else study.runs.assign(points=1)
    rows = distances.own(study).merge(runs[["run", "points"]], on="run")
    rows = rows[np.isfinite(rows["value"].astype(float))].astype({"variant": str})
    names = list(rows["metric"].unique())
    if not names or (len(names) == 1 and _is_judge(study, names[0])):
        raise NothingToShow("the runs have no metric but the one that the study is judged by")
    found = []
    for variant in study.variants:
        of_variant = rows[rows["variant"] == variant]
        for name in [name for name in names if name in set(of_variant["metric"])]:
            average = paired.average(of_variant[of_variant["metric"] == name], variant)
            found.append(
                {
                    "variant": variant,
                    "metric": distances.title(study, name),
                    "better": better.get(name, ""),
                    **averaged(average),
                }
            )
    return pd.DataFrame(found)


def _is_judge(study: Study, name: str) -> bool:
    with suppress(NothingToShow):
        return distances.label(study) == name
    return False
