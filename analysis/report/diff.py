"""Differences between two runs: config, code, environment and result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.judging import distances
from analysis.judging.numerals import DASH, minus
from analysis.study import Study
from analysis.tables.cells import count, elapsed
from mpdit.config import OPERATIONAL, RunConfig

CODE = ("version", "code", "diff_sha", "code_hash", "untracked", "submodules")
NOT_ENVIRONMENT = {
    *(*CODE, "run", "variant", "seed", "study", "time", "job"),
    *("code_snapshot", "imported_from", "checkout"),  # these may differ for the same code
}


class Discrepancy(NamedTuple):
    """One difference between two runs, or one result of both; None if a run lacks the value.

    ``part`` is config, execution (config keys outside a run's identity), code, environment, or
    result.
    """

    part: str
    what: str
    first: Any
    second: Any


def differences(first: Study, second: Study) -> list[Discrepancy]:
    """Return the differences between the only runs of two studies, and both results."""
    pairs = [
        [_known(values) for values in (of(first), of(second))]
        for of in (_config, _last_start, _results)
    ]
    aside = {f"{section}.{key}" for section, keys in OPERATIONAL.items() for key in keys}
    found = []
    for kind, (one, other) in zip(("config", "environment", "result"), pairs, strict=True):
        for key in dict.fromkeys([*one, *other]):
            values = one.get(key), other.get(key)
            if kind == "result" or values[0] != values[1]:
                part = "execution" if key in aside else "code" if _is_code(key) else kind
                found.append(Discrepancy(part, key.removeprefix("packages."), *values))
    return found


def _is_code(key: str) -> bool:
    return key.partition(".")[0] in CODE


def _known(values: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    """Replace NaN by None."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in values
    }


def _config(study: Study) -> Iterator[tuple[str, Any]]:
    for key, value in study.runs.iloc[0].items():
        if str(key).partition(".")[0] in RunConfig.model_fields and key != "model":
            yield str(key), value


def _last_start(study: Study) -> Iterator[tuple[str, Any]]:
    """Yield what a run's last start recorded: first its code, then its environment."""
    last: dict[Any, Any] = next(iter(study.provenance[::-1].to_dict("records")), {})
    for key in (*CODE, *(key for key in last if key not in NOT_ENVIRONMENT)):
        yield str(key), last.get(key)


def _results(study: Study) -> Iterator[tuple[str, Any]]:
    run = study.runs.iloc[0]
    yield "state", run["state"]
    yield "step", run["step"]
    rows = distances.own(study)
    yield from zip(rows["metric"], rows["value"], strict=True)
    logged = study.metrics
    if len(logged):
        yield "loss (last row)", float(logged["loss"].iloc[-1])
        yield "images/s (median)", float(logged["images_per_s"].median())
        yield "memory, MB", float(logged["memory_mb"].max())
    yield "train time", run["train_seconds"]
    yield "parameters", run["parameters"]


def show(first: Study, second: Study, console: Console | None = None) -> None:
    """Print how two runs differ, part by part."""
    console = console or Console()
    found = differences(first, second)
    for letter, study in (("A", first), ("B", second)):
        run = study.runs.iloc[0]
        console.print(Text(f"{letter}  {run['folder']}  (id {run['id'] or DASH})"))
    parts = dict.fromkeys(row.part for row in found)
    for part in ("config", "code", "environment"):
        if part not in parts:
            console.print(Text(f"{part}: the same"))
    for part in parts:
        table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False)
        table.add_column(Text(part), overflow="fold")
        for heading in ("A", "B", *(["B − A"] if part == "result" else [])):
            table.add_column(Text(heading), justify="right", overflow="fold")
        for row in found:
            if row.part == part:
                cells = [_FORMATS.get(row.what, _text)(value) for value in row[2:]]
                table.add_row(*map(Text, [row.what, *cells, *_change(row)]))
        console.print(Text(), table)
    commits = [row[2:] for row in found if row.what == "code" and all(row[2:])]
    for one, other in commits:
        console.print(Text(f"\nto compare the code: git diff {one[:12]} {other[:12]} -- mpdit"))
    for study in (first, second):
        for lack in study.missing["what"]:
            console.print(Text(f"{study.runs['run'].iloc[0]}: {lack}"))


def _text(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, float):
        return minus(f"{value:.6g}")
    return str(value)


_FORMATS: dict[str, Callable[[Any], str]] = {
    "train time": elapsed,
    "parameters": count,
    "step": count,
    "code": lambda value: DASH if value is None else str(value)[:12],
}


def _change(row: Discrepancy) -> list[str]:
    """Return the second result minus the first, if both are numbers."""
    if row.part != "result":
        return []
    if not all(pd.api.types.is_number(value) for value in row[2:]):
        return [""]
    change = row.second - row.first
    if not change:
        return ["0"]
    if row.what == "train time":
        return [("−" if change < 0 else "+") + elapsed(abs(change))]
    return [minus(f"{change:+,.0f}" if row.what in _FORMATS else f"{change:+.4g}")]
