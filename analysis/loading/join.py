"""Join several studies: results of other machines, or experiments that belong together."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from analysis.study import Study
from mpdit.errors import ConfigError

LABELLED = ("runs", "metrics", "magnitudes", "evaluations", "provenance")
"""The frames with a column ``variant``."""


def join(studies: Sequence[Study]) -> Study:
    """Join studies into one, with a column ``study`` that names each run's study.

    Variants with the same name and design are one variant, so that seeds trained elsewhere join the
    others. If the designs differ, the study's name is put before the variant's. A run that is in
    several studies counts once: the copy with the most progress is used (among equals the first),
    and ``missing`` reports the others.

    Raises:
        ConfigError: when two different runs have the same name.
    """
    studies = _each_run_once(_parted(_distinct_variants(_distinctly_named(studies))))
    names = [run for study in studies for run in study.runs["run"]]
    for name, count in Counter(names).items():
        if count > 1:
            where = " and ".join(s.name for s in studies if name in set(s.runs["run"]))
            raise ConfigError(
                f"two different runs are named {name}, in {where}: rename one of the folders"
            )
    variants = dict.fromkeys(variant for study in studies for variant in study.variants)
    kinds: dict[str, Any] = {
        "variant": pd.CategoricalDtype(list(variants), ordered=True),
        "run": pd.CategoricalDtype(names),
        "study": pd.CategoricalDtype([study.name for study in studies]),
    }
    joined = {frame: _stack([getattr(s, frame) for s in studies], kinds) for frame in LABELLED}
    texts = {"run": str, "study": str}
    joined["runs"] = joined["runs"].astype(texts).sort_values("variant", kind="stable")
    return Study(
        name=" + ".join(study.name for study in studies),
        path=studies[0].path,
        missing=_stack([study.missing for study in studies], texts),
        declared=studies[0].declared,
        grid=studies[0].grid,
        sets=studies[0].sets,
        description=" ".join(study.description for study in studies).strip(),
        tune=tuple(dict.fromkeys(key for study in studies for key in study.tune)),
        **{frame: rows.reset_index(drop=True) for frame, rows in joined.items()},
    )


def _stack(frames: list[pd.DataFrame], kinds: dict[str, Any]) -> pd.DataFrame:
    """Concatenate frames. Frames without rows do not affect the columns' types."""
    full = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat([frame.astype(kinds) for frame in full])


def _distinctly_named(studies: Sequence[Study]) -> list[Study]:
    """Rename studies with the same name to their folders."""
    names = Counter(study.name for study in studies)
    return [study if names[study.name] == 1 else _by_its_folder(study) for study in studies]


def _by_its_folder(study: Study) -> Study:
    name = str(study.path)
    frames = {frame: getattr(study, frame) for frame in (*LABELLED, "missing")}
    renamed = {frame: rows.assign(study=name) for frame, rows in frames.items()}
    return replace(study, name=name, **renamed)


def _distinct_variants(studies: list[Study]) -> list[Study]:
    """Put the study's name before variants that have the same name but different designs."""
    designs = defaultdict(set)
    for study in studies:
        for variant, design in study.designs["design"].items():
            designs[variant].add(design)
    changed = []
    for study in studies:
        names = {v: f"{study.name}/{v}" for v in study.variants if len(designs[v]) > 1}
        frames = {frame: getattr(study, frame) for frame in LABELLED}
        renamed = {
            frame: rows.assign(variant=rows["variant"].cat.rename_categories(names))
            for frame, rows in frames.items()
        }
        changed.append(replace(study, **renamed))
    return changed


def _parted(studies: list[Study]) -> list[Study]:
    """Give studies that share a variant, directly or through others, the same number ``part``."""
    parts: list[set[str]] = []
    for names in (set(study.variants) for study in studies):
        joined = names.union(*(part for part in parts if part & names))
        parts = [part for part in parts if not part & names] + [joined]
    numbers = [
        next(number for number, part in enumerate(parts) if part.issuperset(study.variants))
        for study in studies
    ]
    return [
        replace(study, runs=study.runs.assign(part=number))
        for study, number in zip(studies, numbers, strict=True)
    ]


def _each_run_once(studies: list[Study]) -> list[Study]:
    places = defaultdict(list)
    for number, study in enumerate(studies):
        for run in study.runs[["run", "id", "state", "step"]].to_dict("records"):
            places[run["id"] or run["run"]].append((number, run))
    spare: dict[int, list[str]] = defaultdict(list)
    said: dict[int, list[dict[str, str]]] = defaultdict(list)
    for found in places.values():
        best, run = max(found, key=lambda place: (place[1]["state"] == "done", place[1]["step"]))
        for number, other in found:
            if number != best:
                spare[number].append(other["run"])
                what = (
                    f"also in {studies[best].name} ({_progress(studies[best], run)}), here "
                    f"{_progress(studies[number], other)}: left out"
                )
                said[number].append(
                    {"run": other["run"], "study": studies[number].name, "what": what}
                )
    return [
        _without(study, spare[number], said[number]) if spare[number] else study
        for number, study in enumerate(studies)
    ]


def _without(study: Study, runs: list[str], said: list[dict[str, str]]) -> Study:
    missing = study.missing[~study.missing["run"].isin(runs)]
    frames = {frame: getattr(study, frame) for frame in LABELLED}
    kept = {frame: rows[~rows["run"].isin(runs)] for frame, rows in frames.items()}
    return replace(study, missing=pd.concat([missing, pd.DataFrame(said)]), **kept)


def _progress(study: Study, run: Mapping[Hashable, Any]) -> str:
    """Return ``done, FD-digits@500 31.2``, or the state and step of an unfinished run."""
    scores = study.evaluations[study.evaluations["run"] == run["run"]]
    if scores.empty:
        return f"{run['state']}, step {run['step']:,}"
    return f"done, {scores['metric'].iloc[0]} {float(scores['value'].iloc[0]):.4g}"
