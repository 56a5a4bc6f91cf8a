"""The tables: each a function returning a tidy DataFrame of numbers, and their writers.

The comparing tables have one row a variant:

=====================  ============================================================================
variant, baseline      names; the baseline's own row has an empty difference
metric                 the distance's own label; smaller is better
mean, half_width       over seeds; half of the 95 % t interval (NaN for one seed)
seeds                  how many stand behind the mean
limit, limit_half      the same of the distance at N → ∞ (NaN where it was not taken)
sampling_sd            standard deviation between sample sets of one model (NaN without repeats)
floor, floor_metric    the distance of real held-out images, and its label; mean over seeds
difference, low, high  to the baseline, paired by seed, with its 95 % interval
relative, …_low/_high  the same as a fraction of the baseline's mean
pairs                  how many seeds both have
parameters             trainable parameters
relative_size          parameters over the baseline's, less one
train_seconds          mean over seeds of the training time
tuned                  the point of the tune axes that was chosen, only where there are any
=====================  ============================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import comparison, statistics
from analysis.comparison import Comparison
from analysis.load import NothingToShow, Study
from mpdit.study.rundir import write_atomic

DASH = "–"
MAYBE = ("N → ∞", "sampling SD", "floor")
"""Columns that are left out where no run has them."""


def ladder(study: Study) -> pd.DataFrame:
    """The variants that share the first one's conditioning (Table 1 of the paper).

    Raises:
        NothingToShow: before the first evaluation.
    """
    return _compare(study, comparison.ladder(study))


def modulation(study: Study) -> pd.DataFrame:
    """The variants with equal flags that differ in conditioning (Table 2 of the paper).

    Raises:
        NothingToShow: before the first evaluation, or when there are no such variants.
    """
    return _compare(study, comparison.modulation(study))


def others(study: Study) -> pd.DataFrame:
    """The variants that neither of the two takes up, against the study's first.

    Raises:
        NothingToShow: before the first evaluation, or when there are no such variants.
    """
    return _compare(study, comparison.others(study))


TABLES: dict[str, Callable[[Study], pd.DataFrame]] = {
    "ladder": ladder,
    "modulation": modulation,
    "others": others,
}


def differences(study: Study) -> pd.DataFrame:
    """Where the runs' code, packages or machines differ: ``what``, ``value``, ``runs`` (names)."""
    starts = study.provenance
    constant = {"run", "variant", "seed", "time", "job"}
    rows = []
    for what in [name for name in starts.columns if name not in constant]:
        found = starts[what].astype(object).where(starts[what].notna(), None)
        if found.nunique(dropna=False) < 2:
            continue
        for value, group in starts.groupby(found.map(lambda v: "none" if v is None else str(v))):
            runs = list(dict.fromkeys(group["run"]))
            rows.append({"what": what, "value": value, "runs": runs})
    return pd.DataFrame(rows, columns=["what", "value", "runs"])


def _compare(study: Study, groups: list[Comparison]) -> pd.DataFrame:
    distances, metric = comparison.distances(study), comparison.title(study)
    if not groups:
        raise NothingToShow("no variants of this kind")
    runs = comparison.chosen(study)
    seconds = runs[runs["trained"]].groupby("variant", observed=False)["train_seconds"].mean()
    parameters = runs.groupby("variant", observed=False)["parameters"].first()
    rows = []
    for group in groups:
        for variant in group.variants:
            average = statistics.mean(comparison.values(distances, variant))
            row = {
                "variant": variant,
                "baseline": group.baseline,
                "metric": metric,
                "mean": average.value,
                "half_width": average.half_width,
                "seeds": average.n,
                **_companions(study, variant),
                **_differences(distances, variant, group.baseline),
                "parameters": parameters[variant],
                "relative_size": parameters[variant] / parameters[group.baseline] - 1,
                "train_seconds": seconds[variant],
            }
            if study.tune:
                row["tuned"] = _points(distances["tuned"][distances["variant"] == variant])
            rows.append(row)
    return pd.DataFrame(rows)


def _points(tuned: pd.Series[str]) -> str:
    """One name; of several, for how many seeds each was chosen."""
    counts = tuned.value_counts(sort=False)
    if len(counts) < 2:
        return next(iter(counts.index), DASH)
    return ", ".join(f"{point} ({count})" for point, count in counts.items())


def _companions(study: Study, variant: str) -> dict[str, Any]:
    limits, floors = (
        rows[rows["variant"] == variant]
        for rows in (comparison.companions(study, role) for role in ("limit", "floor"))
    )
    limit = statistics.mean(limits["value"])
    return {
        "limit": limit.value,
        "limit_half": limit.half_width,
        "sampling_sd": float(comparison.sampling_sd(study).get(variant, math.nan)),
        "floor": statistics.mean(floors["value"]).value,
        "floor_metric": next(iter(floors["metric"]), DASH),
    }


def _differences(distances: pd.DataFrame, variant: str, baseline: str) -> dict[str, float]:
    if variant == baseline:
        nan = float("nan")
        change = absolute = statistics.Estimate(nan, nan, nan, 0)
    else:
        pairs = comparison.paired(distances, variant, baseline)
        absolute, change = statistics.difference(*pairs), statistics.relative_change(*pairs)
    return {
        "difference": absolute.value,
        "low": absolute.low,
        "high": absolute.high,
        "relative": change.value,
        "relative_low": change.low,
        "relative_high": change.high,
        "pairs": absolute.n,
    }


def pretty(table: pd.DataFrame) -> pd.DataFrame:
    """A comparing table as text for people, under the headings that go into print."""
    digits = _decimals(table["mean"])
    rows: list[dict[str, Any]] = table.to_dict("records")  # type: ignore[assignment]

    def average(value: float, half_width: float = math.nan) -> str:
        if math.isnan(value):
            return DASH
        spread = "" if math.isnan(half_width) else f" ± {half_width:.{digits}f}"
        return minus(f"{value:.{digits}f}{spread}")

    def change(row: dict[str, Any], names: tuple[str, str, str], scale: int, places: int) -> str:
        value, low, high = (scale * row[name] for name in names)
        if math.isnan(value):
            return DASH
        bounded = math.isfinite(low) and math.isfinite(high)
        interval = f" [{low:+.{places}f}, {high:+.{places}f}]" if bounded else ""
        return minus(f"{value:+.{places}f}{interval}")

    text = pd.DataFrame(
        {
            "variant": row["variant"],
            f"{row['metric']} ↓": average(row["mean"], row["half_width"]),
            "N → ∞": average(row["limit"], row["limit_half"]),
            "sampling SD": average(row["sampling_sd"]),
            "floor": average(row["floor"]),
            "seeds": str(row["seeds"]),
            "Δ to baseline": change(row, ("difference", "low", "high"), 1, digits),
            "Δ, %": change(row, ("relative", "relative_low", "relative_high"), 100, 1),
            "parameters": count(row["parameters"]),
            "size, %": minus(f"{100 * row['relative_size']:+.2f}"),
            "train time": duration(row["train_seconds"]),
        }
        for row in rows
    )
    text = text.drop(columns=[name for name in MAYBE if (text[name] == DASH).all()])
    floors = table["floor_metric"].unique()
    if len(floors) == 1 and "floor" in text:
        text = text.rename(columns={"floor": f"floor@{floors[0].split('@')[1]}"})
    text.loc[table["variant"] == table["baseline"], ["Δ to baseline", "Δ, %", "size, %"]] = (
        "baseline"
    )
    return text.assign(tuned=table["tuned"]) if "tuned" in table else text


def _decimals(means: pd.Series[float]) -> int:
    """As many as give the smallest mean four significant digits."""
    smallest = means.abs()[means.abs() > 0].min()
    return 2 if math.isnan(smallest) else min(4, max(0, 3 - math.floor(math.log10(smallest))))


def minus(text: str) -> str:
    """With the sign that is as wide as a plus."""
    return text.replace("-", "−")


def count(value: float | None) -> str:
    """``7,608,871``"""
    return DASH if value is None or math.isnan(value) else f"{int(value):,}"


def duration(seconds: float | None) -> str:
    """``41 s``, ``3 min 20 s``, ``5 h 12 min``"""
    if seconds is None or math.isnan(seconds):
        return DASH
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown."""
    safe = table.map(lambda text: str(text).replace("|", "\\|"))
    alignment = ["left"] + ["right"] * (len(table.columns) - 1)
    return str(safe.to_markdown(index=False, disable_numparse=True, colalign=alignment)) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": r"$-$", "Δ": r"$\Delta$", "↓": r"$\downarrow$",
    "→": r"$\to$", "∞": r"$\infty$", "–": "--", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def latex(table: pd.DataFrame) -> str:
    r"""A table of text as LaTeX; needs ``\usepackage{booktabs}``."""

    def row(cells: list[str]) -> str:
        escaped = ("".join(_LATEX.get(letter, letter) for letter in cell) for cell in cells)
        return " & ".join(escaped) + r" \\"

    lines = [
        rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}",
        r"\toprule",
        row(list(table.columns)),
        r"\midrule",
        *(row(list(cells)) for cells in table.itertuples(index=False, name=None)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def save(table: pd.DataFrame, stem: Path) -> None:
    """``stem``.md and .tex as people read it, .csv with every number in full."""
    text = pretty(table)
    write_atomic(stem.with_name(f"{stem.name}.md"), markdown(text))
    write_atomic(stem.with_name(f"{stem.name}.tex"), latex(text))
    write_atomic(stem.with_name(f"{stem.name}.csv"), table.to_csv(index=False))
