"""Write ``results/<study>/report/``: tables, figures, and one self-contained report.html.

The page needs no network. Its script only sorts and filters the tables. The same results give the
same bytes.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup

from analysis.figures import FIGURES, panels, style
from analysis.judging import conclusions, distances, plans, words
from analysis.study import NothingToShow, Study
from analysis.tables import TABLES, cells, origins
from mpdit.catalogue import PAPERS_FLAGS
from mpdit.disk import links
from mpdit.disk.files import make_folder, write_atomic
from mpdit.disk.lease import sweep
from mpdit.errors import ConfigError

LINKS = {
    "config": "config.yaml",
    "log": "log.txt",
    "provenance": "provenance.json",
    "samples": "samples/grid.png",
}
_CLASSES = {"l": Markup(' class="text"'), "r": ""}
KINDS = {"tables": ("md", "tex", "csv"), "figures": ("png", "pdf", "svg")}


def write(study: Study, out: str | Path | None = None) -> Path:
    """Write the report of a study; by default below the study, in ``report/``.

    Returns:
        the path of report.html.

    Raises:
        ConfigError: when ``out`` cannot be written.
    """
    links.guard(study.path)
    folder = study.path / "report" if out is None else Path(out)
    links.guard(folder)
    try:
        for kind in KINDS:
            make_folder(folder / kind)
        _remove_old(folder)
        with _rare_collections():
            write_atomic(folder / "report.html", _html(study, folder))
    except OSError as error:
        raise ConfigError(f"cannot write the report to {folder}: {error.strerror}") from None
    return folder / "report.html"


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Search for garbage less often: figures make many objects, and little garbage in circles."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _remove_old(folder: Path) -> None:
    """Remove an earlier report's tables and figures: some may no longer apply."""
    for kind, names in (("tables", TABLES), ("figures", FIGURES)):
        sweep((folder / kind).glob(".*"))
        for name in names:
            for suffix in KINDS[kind]:
                (folder / kind / f"{name}.{suffix}").unlink(missing_ok=True)


def _html(study: Study, folder: Path) -> str:
    """Return the page's HTML, and write the files of its tables and figures."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    figures = list(_figures(study, folder))
    shown = [figure for figure in figures if not figure["nothing"]]
    lead = [figure for figure in shown if figure["of"].name == "answers"]
    return environment.get_template("report.html").render(
        study=study.name,
        description=study.description,
        done=int((study.runs["state"] == "done").sum()),
        total=len(study.runs),
        variant_count=len(study.variants),
        statements=conclusions.statements(study),
        steps=_steps(study),
        explanation=words.explanation(study),
        warnings=words.warnings(study),
        tables=list(_tables(study, folder)),
        lead=lead,
        figures=[figure for figure in shown if figure not in lead],
        empty=[figure for figure in figures if figure["nothing"]],
        variants=list(_variants(study)),
        runs=list(_runs(study, folder)),
        missing=study.missing.to_dict("records"),
        differences=origins.differences(study).to_dict("records"),
    )


def _steps(study: Study) -> list[plans.Step]:
    with suppress(NothingToShow):
        return plans.steps(study)
    return []


def _tables(study: Study, folder: Path) -> Iterator[dict[str, Any]]:
    for name, table in TABLES.items():
        with suppress(NothingToShow):
            text = table.save(study, folder / "tables" / name)
            yield {
                "of": table,
                "columns": list(text.columns),
                "classes": ["", *(_CLASSES[side] for side in cells.alignment(text)[1:])],
                "rows": text.to_numpy().tolist(),
                "files": _files("tables", name),
            }


def _figures(study: Study, folder: Path) -> Iterator[dict[str, Any]]:
    for name, figure in FIGURES.items():
        try:
            svg, caption = figure.save(study, folder / "figures" / name)
        except NothingToShow as nothing:
            yield {"of": figure, "nothing": str(nothing)}
            continue
        yield {
            "of": figure,
            "nothing": None,
            "caption": caption,
            "svg": inline(svg, name, f"{figure.title}. {caption}"),
            "files": _files("figures", name),
        }


def _runs(study: Study, folder: Path) -> Iterator[dict[str, Any]]:
    try:
        values = distances.judged(study).set_index("run")["value"].astype(float)
    except NothingToShow:
        values = pd.Series(dtype=float)
    for run in study.runs.to_dict("records"):
        path = Path(run["folder"])
        yield {
            "name": run["run"],
            "variant": run["variant"],
            "seed": run["seed"],
            "state": run["state"],
            "progress": f"{cells.count(run['step'])} / {cells.count(run['steps'])}",
            "distance": f"{values[run['run']]:.4g}" if run["run"] in values else cells.DASH,
            "time": cells.elapsed(run["train_seconds"]),
            "links": [
                (text, quote(os.path.relpath(path / file, folder)))
                for text, file in LINKS.items()
                if (path / file).is_file()
            ],
        }


def _variants(study: Study) -> Iterator[dict[str, Any]]:
    looks = panels.looks(study)
    for variant, run in study.designs.iterrows():
        is_all = set(run["flags"]) == set(PAPERS_FLAGS)
        yield {
            "name": variant,
            "color": looks[str(variant)].color,
            "model": run["model"],
            "conditioning": run["model.conditioning"],
            "final": run["model.final_conditioning"],
            "flags": "all eight" if is_all else ", ".join(run["flags"]) or "none",
        }


def inline(svg: str, name: str, description: str) -> Markup:
    """Convert an SVG file to an element of the page, with the page's colours and unique ids."""
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
