"""The tables: each a function ``Study`` → tidy DataFrame of numbers, and what prints it.

    numbers = tables.ladder(study)
    text = tables.TABLES["ladder"].text(numbers)
    tables.save(numbers, text, Path("ladder"))  # ladder.md, ladder.tex, and ladder.csv in full

They raise :class:`~analysis.study.NothingToShow` while the study has nothing of the kind.

To add one, decorate a function of a module in this folder with `analysis.tables.table.table`: it is
then in TABLES, in the report, and an attribute of this package.
"""

from analysis.tables.cells import latex as latex
from analysis.tables.cells import save as save
from analysis.tables.compare import pretty as pretty
from analysis.tables.table import TABLES as TABLES

globals().update(TABLES.discover(__name__, __path__))
