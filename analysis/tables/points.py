"""The tuning curves: how each variant does at every point of the tune axes."""

from __future__ import annotations

import pandas as pd

from analysis.tables.cells import DASH, decimals, number


def pretty(curve: pd.DataFrame) -> pd.DataFrame:
    """``tuning.curve`` as text for people."""
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
