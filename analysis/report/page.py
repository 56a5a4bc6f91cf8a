"""``results/<study>/report/``: tables, figures, and one self-contained report.html.

The page needs no network, and its script only sorts and filters the tables; the same results give
the same bytes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis import tables
from analysis.figures import FIGURES, panels, style
from analysis.judging import comparison, conclusions, literature, words
from analysis.loading.load import load
from analysis.report.captions import CAPTIONS, TITLES
from analysis.study import NothingToShow, Study
from mpdit.disk.rundir import write_atomic
from mpdit.errors import ConfigError

LINKS = {
    "config": "config.yaml",
    "log": "log.txt",
    "provenance": "provenance.json",
    "samples": "samples/grid.png",
}
_CLASSES = {"l": Markup(' class="text"'), "r": ""}
KINDS = {"tables": ("md", "tex", "csv"), "figures": ("png", "pdf", "svg")}


def write(study_dir: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of a study; by default below the study, in ``report/``.

    Returns:
        the path of report.html.

    Raises:
        ConfigError: when ``study_dir`` is no study, or ``out`` cannot be written.
    """
    return write_loaded(load(study_dir), out)


def write_loaded(study: Study, out: str | Path | None = None) -> Path:
    """:func:`write` for a study that is already loaded."""
    folder = study.path / "report" if out is None else Path(out)
    try:
        for kind in KINDS:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        _forget(folder)
        page = Page(study, folder)
        write_atomic(folder / "report.html", page.html())
    except OSError as error:
        raise ConfigError(f"cannot write the report to {folder}: {error.strerror}") from None
    return folder / "report.html"


def _forget(folder: Path) -> None:
    """Remove what an earlier report wrote: what no longer applies must not lie beside the new."""
    for kind, names in (("tables", tables.TABLES), ("figures", FIGURES)):
        for name in names:
            for suffix in KINDS[kind]:
                (folder / kind / f"{name}.{suffix}").unlink(missing_ok=True)


@dataclass(frozen=True)
class Page:
    """What report.html shows; making it also writes the tables' and figures' own files."""

    study: Study
    folder: Path

    def html(self) -> str:
        study = self.study
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        figures = list(self.figures())
        done = int((study.runs["state"] == "done").sum())
        return environment.get_template("report.html").render(
            study=study.name,
            done=done,
            total=len(study.runs),
            variant_count=len(study.variants),
            statements=conclusions.statements(study),
            explanation=words.explanation(study),
            warnings=words.warnings(study),
            tables=list(self.tables()),
            figures=figures,
            variants=list(_variants(study)),
            runs=list(self.runs()),
            missing=study.missing.to_dict("records"),
            differences=tables.differences(study).to_dict("records"),
        )

    def tables(self) -> Iterator[dict[str, Any]]:
        for name, kind in tables.TABLES.items():
            try:
                table = kind.make(self.study)
            except NothingToShow:
                continue
            text = kind.text(table)
            tables.save(table, text, self.folder / "tables" / name)
            yield {
                "name": name,
                "title": kind.title,
                "caption": kind.caption,
                "columns": list(text.columns),
                "classes": ["", *(_CLASSES[side] for side in tables.alignment(text)[1:])],
                "rows": text.to_numpy().tolist(),
                "files": _files("tables", name),
                "nothing": None,
            }

    def figures(self) -> Iterator[dict[str, Any]]:
        for name, draw in FIGURES.items():
            try:
                figure = draw(self.study)
            except NothingToShow as nothing:
                yield {"name": name, "title": TITLES[name], "nothing": str(nothing)}
                continue
            svg = style.save(figure, self.folder / "figures" / name)
            caption = f"{CAPTIONS[name]}{_left_out(self.study, name)}"
            yield {
                "name": name,
                "title": TITLES[name],
                "caption": caption,
                "svg": inline(svg, name, f"{TITLES[name]}. {caption}"),
                "files": _files("figures", name),
                "nothing": None,
            }

    def runs(self) -> Iterator[dict[str, Any]]:
        study = self.study
        try:
            rows = comparison.own(study)
            rows = rows[rows["metric"] == comparison.label(study)]
            rows = rows.drop_duplicates("run", keep="last")
            values = rows.set_index("run")["value"].astype(float)
        except NothingToShow:
            values = pd.Series(dtype=float)
        for run in study.runs.to_dict("records"):
            folder = study.folder(run["run"]).path
            yield {
                "name": run["run"],
                "variant": run["variant"],
                "seed": run["seed"],
                "state": run["state"],
                "progress": f"{_count(run['step'])} / {_count(run['steps'])}",
                "distance": f"{values[run['run']]:.4g}" if run["run"] in values else tables.DASH,
                "time": tables.duration(_number(run["train_seconds"])),
                "links": [
                    (text, quote(os.path.relpath(folder / file, self.folder)))
                    for text, file in LINKS.items()
                    if (folder / file).is_file()
                ],
            }


def _left_out(study: Study, name: str) -> str:
    """How many variants a figure has, where it does not have all."""
    limit = panels.ROWS if name in ("distance", "speed") else style.SHOWN
    if len(study.variants) <= limit:
        return ""
    return f" The baseline and the {limit - 1} best of {len(study.variants)} variants."


def _variants(study: Study) -> Iterator[dict[str, Any]]:
    looks = panels.looks(study)
    for variant, run in study.designs.iterrows():
        is_all = set(run["flags"]) == set(literature.EIGHT)
        yield {
            "name": variant,
            "color": looks[str(variant)].color,
            "model": run["model"],
            "conditioning": run["model.conditioning"],
            "final": run["model.final_conditioning"],
            "flags": "all eight" if is_all else ", ".join(run["flags"]) or "none",
        }


def inline(svg: str, name: str, description: str) -> Markup:
    """An SVG file as an element of the page: in the page's colours, with ids of its own."""
    text = svg[svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(style.INK, "currentColor").replace(f"fill: {style.PAPER}", "fill: none")
    size = re.compile(r'(<svg[^>]*?) width="[^"]*"| height="[\d.]+pt"', flags=re.DOTALL)
    head, rest = text[: text.index(">")], text[text.index(">") :]
    head = size.sub(lambda match: match.group(1) or "", head)
    label = Markup.escape(description)
    return Markup(f'{head} role="img" aria-label="{label}"{rest}')


def _files(folder: str, name: str) -> list[tuple[str, str]]:
    return [(kind.upper(), f"{folder}/{name}.{kind}") for kind in KINDS[folder]]


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _count(value: Any) -> str:
    return tables.count(_number(value))
