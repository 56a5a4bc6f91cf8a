"""The origin of each number: the runs, their code and their machines."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd

from analysis.judging import distances
from analysis.study import NothingToShow, Study
from analysis.tables.cells import DASH, printer
from analysis.tables.table import table

FROM_RUNS = ["run", "study", "variant", "seed", "id", "state", "step", "steps", "parameters"]
FROM_STARTS = [
    *("code", "diff_sha", "code_hash", "code_snapshot", "python", "packages.torch"),
    *("host", "device", "processes"),
]


def _known(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _short(value: object) -> str:
    """Return the first seven characters of a commit, hash or version."""
    return str(value)[:7] if _known(value) else DASH


@table(
    title="Where the runs come from",
    caption="Code, packages and machine are those of a run's last start. + marks uncommitted "
    "changes, which are stored with the run. Runs with the same code hash have the same code, even "
    "if their commits differ. Packages and threads are in the CSV.",
    text=printer(
        {
            "run": "run",
            "state": "state",
            "distance": "distance",
            "train time": "train_seconds",
            "code": lambda row: _short(row["code"]) + "+" * _known(row["diff_sha"]),
            "code hash": lambda row: _short(row["code_hash"]),
            "torch": lambda row: _short(row["packages.torch"]),
            "device": lambda row: row["device"] if _known(row["device"]) else DASH,
            "host": lambda row: row["host"] if _known(row["host"]) else DASH,
            "starts": "starts",
        }
    ),
    place=120,
)
def inventory(study: Study) -> pd.DataFrame:
    """List every run of the grid, done or not.

    ``run``, ``study``, ``variant``, ``seed``, ``id``, ``state``, ``step`` of ``steps``,
    ``parameters``, ``train_seconds``; ``distance`` (NaN if there is none); from the last start
    ``code`` (commit), ``diff_sha`` (of an uncommitted diff), ``code_hash``, ``code_snapshot``,
    ``python``, ``packages.torch``, ``host``, ``device``, ``processes``, ``threads``; ``starts``
    (their number), ``began`` (the first start's time), ``jobs`` (Slurm's).
    """
    runs = study.runs[[*FROM_RUNS, "train_seconds"]]
    try:
        scores = distances.of_runs(study).set_index("run")["value"]
    except NothingToShow:
        scores = pd.Series(dtype=float)
    starts = study.provenance.reindex(columns=["run", "time", "job", *FROM_STARTS, "threads"])
    starts = starts.astype({"run": str})
    last = starts.drop_duplicates("run", keep="last").drop(columns=["time", "job"])
    table = runs.assign(distance=runs["run"].map(scores).astype(float)).merge(
        last, on="run", how="left"
    )
    by_run = starts.groupby("run")
    jobs = {run: ", ".join(dict.fromkeys(map(str, ids.dropna()))) for run, ids in by_run["job"]}
    return table.assign(
        starts=table["run"].map(Counter(starts["run"])).fillna(0).astype(int),
        began=table["run"].map(by_run["time"].min()),
        jobs=[jobs.get(run, "") for run in table["run"]],
    )


def differences(study: Study) -> pd.DataFrame:
    """List differences in the runs' code, packages or machines: ``what``, ``value``, ``runs``."""
    starts = study.provenance
    apart = {"run", "variant", "seed", "study", "time", "job"}
    apart |= {"code_snapshot", "imported_from", "checkout"}  # these may differ for the same code
    rows = []
    for what in [name for name in starts.columns if name not in apart]:
        found = starts[what].astype(object).where(starts[what].notna(), None)
        if found.nunique(dropna=False) < 2:
            continue
        for value, group in starts.groupby(found.map(lambda v: "none" if v is None else str(v))):
            runs = list(dict.fromkeys(group["run"]))
            rows.append({"what": what, "value": value, "runs": runs})
    return pd.DataFrame(rows, columns=["what", "value", "runs"])
