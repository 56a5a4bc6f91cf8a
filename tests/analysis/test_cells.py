"""Names that others chose stay text in every kind of file that a table is written to."""

import csv
import io

import pandas as pd
import pytest

from analysis.tables import cells

FORMULAS = ["=1+1", "+x", "-x", "@SUM(A1)", "\tx", "=cmd|' /C calc'!A0"]


@pytest.mark.parametrize("text", FORMULAS)
def test_text_that_a_spreadsheet_would_compute_is_quoted(text: str) -> None:
    table = pd.DataFrame({text: ["a"], "variant": pd.Categorical([text]), "value": [-1.5]})
    head, row = csv.reader(io.StringIO(cells.csv(table)))
    assert (head[0], row[1], row[2]) == (f"'{text}", f"'{text}", "-1.5")


@pytest.mark.parametrize("text", ["-1.5", "+3", "a=b", "–", "x-1"])
def test_numbers_and_other_text_stay_as_they_are(text: str) -> None:
    assert cells.csv(pd.DataFrame({"a": [text]})) == f"a\n{text}\n"


def test_cells_of_markdown_are_no_markup() -> None:
    name = "a|b <img src=x> `c` *d* [e](http://f) \x1b[2J\ng"
    made = cells.markdown(pd.DataFrame({"variant": [name], name: ["< 0.001"]}))
    escaped = r"a\|b \<img src=x> \`c\` \*d\* [e\](http://f) \\x1b[2J g"
    head, _, row = made.splitlines()
    assert row.startswith(f"| {escaped} |")
    assert head.endswith(f" {escaped} |")
    assert "| < 0.001 |" in " ".join(row.split())


def test_cells_of_latex_are_one_printable_line() -> None:
    made = cells.latex(pd.DataFrame({"variant": ["a\n\nb\x1b"], "n": ["1"]}))
    assert r"a b\textbackslash{}x1b & 1 \\" in made.splitlines()
