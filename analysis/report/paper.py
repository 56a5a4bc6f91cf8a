"""Write the paper's tables and figures, from those of its studies that exist.

The folder ``paper/`` gets each study's tables and figures under the paper's names, and
``paper.md``, with all of them, the conclusions, and what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from analysis.exhibits import Exhibit, Exhibits
from analysis.figures import FIGURES
from analysis.figures.figure import FigureExhibit
from analysis.judging import conclusions, plans, words
from analysis.loading import published
from analysis.loading.load import load
from analysis.study import NothingToShow, Study
from analysis.tables import TABLES, cells
from analysis.tables.table import TableExhibit
from mpdit.disk import links
from mpdit.disk.files import make_folder, write_atomic
from mpdit.disk.rundir import PUBLISHED
from mpdit.errors import ConfigError
from mpdit.invocation import typed

E = TypeVar("E", bound=Exhibit[Any])


@dataclass(frozen=True)
class Chapter:
    """The tables and figures of one study in the paper.

    Attributes:
        study: its name; its grid is ``experiments/<study>.yaml``.
        about: the question, in words.
        tables, figures: printed name → exhibit.
    """

    study: str
    about: str
    tables: Mapping[str, TableExhibit]
    figures: Mapping[str, FigureExhibit]

    @classmethod
    def of(cls, study: str, about: str, tables: str, figures: str) -> Chapter:
        """Make a chapter from names of exhibits.

        Each name is ``printed name=name``, or only ``name``, which is printed as ``study-name``.

        Raises:
            KeyError: for an unknown name.
        """
        return cls(study, about, _named(study, TABLES, tables), _named(study, FIGURES, figures))

    @property
    def command(self) -> str:
        return typed("submit", f"experiments/{self.study}.yaml")


def _named(study: str, exhibits: Exhibits[E], words: str) -> dict[str, E]:
    pairs = (word.rpartition("=") for word in words.split())
    return {printed or f"{study}-{name}": exhibits[name] for printed, _, name in pairs}


_TABLES = "verdicts ladder contributions modulation metrics overhead inventory"
_FIGURES = "answers distance distance_parameters magnitude_depth samples"
CHAPTERS = (
    Chapter.of(
        "ladder",
        "Magnitude preservation, step by step (Table 1)",
        "table1=ladder_by_size table1-in-full=ladder contributions verdicts metrics overhead "
        "inventory",
        "answers distance magnitude_depth magnitude_training magnitudes loss distance_training "
        "sweep samples speed",
    ),
    Chapter.of(
        "modulation",
        "What the conditioning is made of (Table 2)",
        "table2=modulation verdicts metrics overhead inventory",
        "answers distance distance_parameters magnitude_depth distance_training sweep samples",
    ),
    Chapter.of(
        "tuned",
        "Ladder and modulations, each at its own best rate, on handwritten digits",
        _TABLES,
        f"{_FIGURES} tuning_curve",
    ),
    Chapter.of(
        "fashion-small", "None, all and rotation + scale on Fashion-MNIST", _TABLES, _FIGURES
    ),
    Chapter.of("fashion", "Ladder and modulations on Fashion-MNIST", _TABLES, _FIGURES),
    Chapter.of(
        "factorial",
        "The flags and the conditioning, crossed, on handwritten digits",
        "verdicts factorial-effects=main_effects factorial-pairs=interactions",
        "answers main_effects interactions",
    ),
    Chapter.of(
        "quickstart", "None, all and three modulations on handwritten digits", _TABLES, _FIGURES
    ),
)


def write(results: Path, out: Path, say: Callable[[str], object] = print) -> Path:
    """Write the paper's tables and figures into ``out``.

    Args:
        results: the folder of the studies; a published summary below it replaces a missing study.
        say: called with a line on each study; for a missing one, with the command that makes it.

    Returns:
        the path of paper.md.

    Raises:
        ConfigError: when none of the studies exists, or ``out`` cannot be written.
    """
    found = {
        chapter.study: folder for chapter in CHAPTERS if (folder := find(results, chapter.study))
    }
    if not found:
        first = CHAPTERS[-1]
        raise ConfigError(
            f"{results} has none of the paper's studies ({', '.join(p.study for p in CHAPTERS)}); "
            f"make the smallest with: {first.command}"
        )
    lines = ["# The paper's tables and figures", ""]
    links.guard(out)
    try:
        for kind in ("tables", "figures"):
            make_folder(out / kind)
        for chapter in CHAPTERS:
            lines += [f"## {chapter.about}", ""]
            if chapter.study in found:
                study = load(found[chapter.study])
                say(f"{chapter.study}: {_state(study)} ({study.path})")
                lines += _lines(chapter, study, out)
            else:
                say(f"{chapter.study}: missing; make it with: {chapter.command}")
                lines += [f"Missing. Make it with `{chapter.command}`.", ""]
        write_atomic(out / "paper.md", "\n".join(lines))
    except OSError as error:
        raise ConfigError(f"cannot write to {out}: {error.strerror}") from None
    return out / "paper.md"


def find(results: Path, study: str) -> Path | None:
    """Return the study's folder, or its published summary; None without either."""
    whole, summary = results / study, results / PUBLISHED / study
    if (whole / "study.json").is_file():
        return whole
    return summary if published.is_published(summary) else None


def _state(study: Study) -> str:
    done = int((study.runs["state"] == "done").sum())
    return f"{done} of {len(study.runs)} runs done"


def _lines(chapter: Chapter, study: Study, out: Path) -> Iterator[str]:
    """Yield the lines of paper.md on one study, and write its tables and figures."""
    yield f"Study `{chapter.study}`: {_state(study)}."
    if len(study.missing):
        runs = study.missing["run"].nunique()
        are = "runs are" if runs > 1 else "run is"
        yield f"{runs} {are} incomplete; `{chapter.command}` runs the missing parts."
    yield ""
    yield from (f"- {said}" for said in conclusions.statements(study))
    with suppress(NothingToShow):
        yield from (f"- Next: {step}" for step in plans.steps(study))
    yield from (f"- Note: {said}." for said in words.warnings(study))
    yield from ("", words.explanation(study), "")
    for name, table in chapter.tables.items():
        try:
            text = table.save(study, out / "tables" / name)
        except NothingToShow as nothing:
            yield f"{name}: {nothing}.\n"
            continue
        yield f"**{name}.** {table.title}. {table.caption}\n"
        yield cells.markdown(text)
    for name, figure in chapter.figures.items():
        try:
            _, caption = figure.save(study, out / "figures" / name)
        except NothingToShow as nothing:
            yield f"{name}: {nothing}.\n"
            continue
        yield f"![{figure.title}](figures/{name}.png)\n"
        yield f"**{name}.** {figure.title}. {caption}\n"
