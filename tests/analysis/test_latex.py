"""The LaTeX files are what LaTeX takes."""

import shutil
import subprocess
from pathlib import Path

import pytest

from analysis import NothingToShow, Study, tables
from analysis.loading.load import load
from mpdit.disk.rundir import RunDir
from tests.helpers import synthetic

DOCUMENT = r"""\documentclass{article}
\usepackage[landscape,margin=1cm]{geometry}
\usepackage{booktabs}
\begin{document}\tiny
%s
\end{document}
"""


def has_latex() -> bool:
    """Whether there is a LaTeX with booktabs (Debian: texlive-latex-recommended)."""
    if shutil.which("pdflatex") is None:
        return False
    found = subprocess.run(["kpsewhich", "booktabs.sty"], capture_output=True)
    return found.returncode == 0


@pytest.mark.skipif(not has_latex(), reason="there is no pdflatex with booktabs")
def test_every_table_compiles(study: Study, tmp_path: Path) -> None:
    names = {"A_none": "odd [x] {y} 50% a|b $c$ #d ~e ^f \\g <h>"}
    measured = synthetic.write_study(tmp_path / "measured", seeds=1)
    for file in measured.glob("*/config.yaml"):
        run, row = RunDir(file.parent), {"metric": "recall_of-digits@1000", "better": "higher"}
        synthetic.write_evaluation(run, 0.5, 0, **row)
    studies = [
        study,
        load(measured),
        load(synthetic.write_study(tmp_path / "odd", seeds=1, **names)),
        load(synthetic.write_factorial(tmp_path / "factorial", seeds=2)),
        load(synthetic.write_tuned(tmp_path / "tuned")),
    ]
    parts, made = [], set()
    for one in studies:
        for name, kind in tables.TABLES.items():
            try:
                text = kind.text(kind.make(one))
            except NothingToShow:
                continue
            parts.append(tables.latex(text))
            made.add(name)
    assert made == set(tables.TABLES) - {"ladder_by_size", "others"}
    (tmp_path / "all.tex").write_text(DOCUMENT % "\n\\clearpage\n".join(parts))
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"],
        cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
