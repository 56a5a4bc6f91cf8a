"""The tables: each a function ``Study`` → tidy DataFrame of numbers, with a printer for its text.

    numbers = tables.ladder(study)
    text = tables.TABLES["ladder"].text(numbers)
    tables.save(numbers, text, Path("ladder"))  # ladder.md, ladder.tex, and ladder.csv in full

A table raises :class:`~analysis.study.NothingToShow` if the study has no data for it yet.

To add a table, decorate a function of a module in this folder with `analysis.tables.table.table`.
It is then in TABLES, in the report, and an attribute of this package.
"""

from analysis.tables.cells import latex as latex
from analysis.tables.cells import save as save
from analysis.tables.compare import pretty as pretty
from analysis.tables.table import TABLES as TABLES

globals().update(TABLES.discover(__name__, __path__))
