"""Everything the paper shows, from whichever of its studies are there.

``paper/`` gets each study's tables and figures under the names that the paper gives them, and
``paper.md``, which shows them all, says what may be concluded, and what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis import tables
from analysis.figures import FIGURES, style
from analysis.judging import conclusions, words
from analysis.loading import published
from analysis.loading.load import load
from analysis.report.captions import CAPTIONS, TITLES
from analysis.study import NothingToShow, Study
from mpdit.disk.files import write_atomic
from mpdit.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """What the paper shows of one study.

    Attributes:
        study: its name; its grid is ``experiments/<study>.yaml``.
        about: the question, in words.
        tables, figures: name in print → name in ``tables.TABLES`` or ``figures.FIGURES``.
    """

    study: str
    about: str
    tables: dict[str, str]
    figures: dict[str, str]

    @property
    def command(self) -> str:
        return f"python launch.py submit experiments/{self.study}.yaml"


def _numbered(study: str, *names: str) -> dict[str, str]:
    return {f"{study}-{name}": name for name in names}


_TABLES = ("ladder", "contributions", "modulation", "evidence", "overhead", "inventory")
PARTS = (
    Part(
        "ladder",
        "Magnitude preservation, step by step (Table 1)",
        {
            "table1": "ladder_by_size",
            "table1-in-full": "ladder",
            **_numbered("ladder", "contributions", "evidence", "overhead", "inventory"),
        },
        _numbered(
            *("ladder", "distance", "magnitude_depth", "magnitude_training", "magnitudes"),
            *("loss", "distance_training", "sweep", "samples", "speed"),
        ),
    ),
    Part(
        "modulation",
        "What the conditioning is made of (Table 2)",
        {"table2": "modulation", **_numbered("modulation", "evidence", "overhead", "inventory")},
        _numbered(
            *("modulation", "distance", "distance_parameters", "magnitude_depth"),
            *("distance_training", "sweep", "samples"),
        ),
    ),
    Part(
        "fashion",
        "Ladder and modulations on Fashion-MNIST",
        _numbered("fashion", *_TABLES),
        _numbered("fashion", "distance", "distance_parameters", "magnitude_depth", "samples"),
    ),
    Part(
        "factorial",
        "Every combination of the flags, on handwritten digits",
        {"factorial-effects": "main_effects", "factorial-pairs": "interactions"},
        _numbered("factorial", "main_effects", "interactions"),
    ),
    Part(
        "quickstart",
        "Ladder and modulations on handwritten digits",
        _numbered("quickstart", *_TABLES),
        _numbered("quickstart", "distance", "distance_parameters", "magnitude_depth", "samples"),
    ),
)


def write(results: Path, out: Path, say: Callable[[str], object] = print) -> Path:
    """Write the paper's tables and figures into ``out``.

    Args:
        results: where the studies' folders are; a published summary below it stands in for a
            study that is not there.
        say: is told of each study, and of the command that makes a missing one.

    Returns:
        the path of paper.md.

    Raises:
        ConfigError: when not one of the studies is there, or ``out`` cannot be written.
    """
    found = {part.study: folder for part in PARTS if (folder := find(results, part.study))}
    if not found:
        first = PARTS[-1]
        raise ConfigError(
            f"{results} has none of the paper's studies ({', '.join(p.study for p in PARTS)}); "
            f"the smallest is made by: {first.command}"
        )
    lines = ["# The paper's tables and figures", ""]
    try:
        for kind in ("tables", "figures"):
            (out / kind).mkdir(parents=True, exist_ok=True)
        for part in PARTS:
            lines += [f"## {part.about}", ""]
            if part.study in found:
                study = load(found[part.study])
                say(f"{part.study}: {_state(study)} ({study.path})")
                lines += _part(part, study, out)
            else:
                say(f"{part.study}: missing; it is made by: {part.command}")
                lines += [f"Missing. It is made by `{part.command}`.", ""]
        write_atomic(out / "paper.md", "\n".join(lines))
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror}") from None
    return out / "paper.md"


def find(results: Path, study: str) -> Path | None:
    """The study's folder, or its published summary."""
    whole, summary = results / study, results / "published" / study
    if (whole / "study.json").is_file():
        return whole
    return summary if published.is_published(summary) else None


def _state(study: Study) -> str:
    done = int((study.runs["state"] == "done").sum())
    return f"{done} of {len(study.runs)} runs done"


def _part(part: Part, study: Study, out: Path) -> Iterator[str]:
    """The lines of paper.md on one study; its tables and figures are written on the way."""
    yield f"Study `{part.study}`: {_state(study)}."
    if len(study.missing):
        runs = study.missing["run"].nunique()
        yield f"Of {runs} run{'s' if runs > 1 else ''} something is missing; `{part.command}` "
        yield "makes what has not run."
    yield ""
    yield from (f"- {said}" for said in conclusions.statements(study))
    yield from (f"- Note: {said}." for said in words.warnings(study))
    yield from ("", words.explanation(study), "")
    for name, of in part.tables.items():
        kind = tables.TABLES[of]
        try:
            table = kind.make(study)
        except NothingToShow as nothing:
            yield f"{name}: {nothing}.\n"
            continue
        text = kind.text(table)
        tables.save(table, text, out / "tables" / name)
        yield f"**{name}.** {kind.title}. {kind.caption}\n"
        yield tables.markdown(text)
    for name, of in part.figures.items():
        try:
            figure = FIGURES[of](study)
        except NothingToShow as nothing:
            yield f"{name}: {nothing}.\n"
            continue
        style.save(figure, out / "figures" / name)
        yield f"![{TITLES[of]}](figures/{name}.png)\n"
        yield f"**{name}.** {TITLES[of]}. {CAPTIONS[of]}\n"
