"""Table 1 of the paper: the steps of the ladder, with columns for each model size."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.judging import literature
from analysis.study import NothingToShow, Study
from analysis.tables import cells, compare
from analysis.tables.table import table
from mpdit.catalogue.flags import code_of


def pretty(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per step; for every size the distance, its change, and the paper's numbers."""
    places = cells.decimals(table["mean"])
    text = pd.DataFrame({"step": table["step"].unique()})
    published = []
    for model, rows in table.groupby("model", sort=False):
        of_step: dict[Any, dict[Any, Any]] = rows.set_index("step").to_dict("index")
        found = [_cells(of_step.get(step), places) for step in text["step"]]
        arrow = cells.ARROWS[rows["better"].iloc[0]]
        columns = [f"{model} {rows['metric'].iloc[0]}{arrow}", f"{model} change"]
        columns += [f"{model} {what}, {literature.PAPER}" for what in ("FID", "Δ, %")]
        text[columns] = found
        published += columns[2:]
    empty = [name for name in published if (text[name] == cells.DASH).all()]
    return text.drop(columns=empty)


@table(
    title="Magnitude preservation at each model size",
    caption=f"{compare.CAPTION} The paper does not state the model size of its change.",
    text=pretty,
    place=10,
)
def ladder_by_size(study: Study) -> pd.DataFrame:
    """Return the ladder's table with a column ``step``, which is equal for all sizes of a step."""
    table = compare.ladder(study)
    designs = study.designs.loc[table["variant"]]
    named = designs["named"]
    flags = [" ".join(map(code_of, on)) or "none" for on in designs["flags"]]
    steps = list(named) if named.notna().all() else flags
    table.insert(0, "step", steps)
    if table["model"].nunique() < 2:
        raise NothingToShow("the ladder is of one model size")
    if table.duplicated(["step", "model"]).any():
        raise NothingToShow("the ladder's steps differ by more than the model's size")
    return table


def _cells(row: dict[Any, Any] | None, places: int) -> list[str]:
    if row is None:
        return [cells.DASH] * 4
    return [
        cells.number(row["mean"], places, row["half_width"]),
        "baseline" if row["variant"] == row["baseline"] else cells.cell(row, "effect", places),
        cells.number(row["published_distance"], 2),
        cells.percent(row["published_relative"]),
    ]
