"""The time of a training step of each variant, compared with its baseline."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from analysis.judging import comparison, literature, speed, statistics
from analysis.study import NothingToShow, Study
from analysis.tables.cells import DASH, RELATIVE, averaged, bounds, number, printer
from analysis.tables.table import table
from mpdit.decisions.comparisons import ComparisonGroup

MACHINE = ["device", "threads", "processes"]
"""Columns that must be equal for times to be compared."""
PUBLISHED = f"Δ, %, {literature.PAPER}"


@table(
    title="Training time",
    caption="Median step time of each run: mean over seeds ± half the width of its 95 % t "
    "interval. Δ is paired by seed, between runs on the same device. Beside others: runs that "
    "shared their host with another run of the study, which slows both.",
    text=printer(
        {
            "variant": "variant",
            "step, ms": lambda row: number(1e3 * row["step_seconds"], 1, 1e3 * row["half_width"]),
            "seeds": "seeds",
            "against": lambda row: DASH if row["variant"] == row["baseline"] else row["baseline"],
            "Δ, %": "relative",
            PUBLISHED: "published_relative",
            "device": lambda row: row["device"] or DASH,
            "beside others": lambda row: (
                f"{row['shared']} of {row['seeds']}" if row["shared"] else DASH
            ),
        },
        maybe=[PUBLISHED, "beside others"],
    ),
    place=110,
)
def overhead(study: Study) -> pd.DataFrame:
    """Return the training time, one row per variant.

    ``variant``, ``baseline``; ``step_seconds``, ``half_width`` (mean over ``seeds`` of each run's
    median step time); ``relative``, ``…_low``, ``…_high`` (change from the baseline as a fraction,
    paired by seed, 95 % interval), ``pairs`` (seeds for which variant and baseline trained on the
    same device with equal threads and processes); ``published_relative`` (the paper's change);
    ``device``; ``shared`` (the number of runs that shared their host with another run).
    """
    groups = comparison.groups(study)
    if not groups:
        raise NothingToShow("no run has a readable config")
    times, shared = _times(study), speed.side_by_side(study)
    by_variant = {str(name): rows for name, rows in times.groupby("variant", observed=True)}
    nothing = times.iloc[:0]
    designs: dict[Any, Any] = study.designs.to_dict("index")
    pairs = _pairs(times, groups)
    rows: dict[str, dict[str, Any]] = {}
    for group in groups:
        for variant in group.variants:
            if variant == group.baseline and variant in rows:
                continue  # a step of the ladder that is also the baseline of modulations
            own = by_variant.get(variant, nothing)
            average = statistics.mean(own["step_seconds"])
            rows[variant] = {
                "variant": variant,
                "baseline": group.baseline,
                **averaged(average, ("step_seconds", "half_width", "seeds")),
                **_relative(pairs.get((variant, group.baseline))),
                "published_relative": _published(designs[variant], designs[group.baseline]),
                "device": ", ".join(dict.fromkeys(own["device"].dropna())),
                "shared": int(own["run"].isin(shared).sum()),
            }
    return pd.DataFrame(rows.values())


def _times(study: Study) -> pd.DataFrame:
    """Return one row per run: the seconds of a step, and the machine of its last start."""
    starts = study.provenance.drop_duplicates("run", keep="last")
    runs = speed.of_runs(study).merge(study.runs[["run", "train.batch_size"]], on="run")
    runs = runs.merge(starts.reindex(columns=["run", *MACHINE]), on="run", how="left")
    return runs.assign(step_seconds=runs["train.batch_size"] / runs["images_per_s"])


def _pairs(times: pd.DataFrame, groups: list[ComparisonGroup]) -> dict[Any, pd.DataFrame]:
    """Return (variant, baseline) → the seeds for which both trained on the same machine."""
    asked = [(v, group.baseline) for group in groups for v in group.variants if v != group.baseline]
    times = times.astype({"variant": str})
    own = times.merge(pd.DataFrame(asked, columns=["variant", "baseline"], dtype=str), on="variant")
    theirs = times.rename(columns={"variant": "baseline", "step_seconds": "of_baseline"})
    keys = ["baseline", "seed", *MACHINE]
    found = own.merge(theirs[[*keys, "of_baseline"]], on=keys)
    return dict(iter(found.groupby(["variant", "baseline"])))


def _relative(pairs: pd.DataFrame | None) -> dict[str, Any]:
    nothing = pd.Series(dtype=float)
    own, theirs = (
        nothing if pairs is None else pairs[name] for name in ("step_seconds", "of_baseline")
    )
    found = statistics.relative_change(own, theirs)
    return {**bounds(found, RELATIVE), "pairs": found.n}


def _published(run: dict[str, Any], baseline: dict[str, Any]) -> float:
    row = literature.ladder(run)
    return row.step_time if row and row.step_time and not baseline["flags"] else math.nan
