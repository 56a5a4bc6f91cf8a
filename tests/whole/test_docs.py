"""The docs' tables are the package's, and every file that docs/adding.md names is one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mpdit.catalogue import TABLES
from mpdit.catalogue.__main__ import page
from tests.helpers import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(((?:\.\./|[\w-]+/|[\w-]+\.)[^)#]*)\)")


def test_the_page_of_all_tables_is_the_one_that_the_tables_make() -> None:
    assert (DOCS / "catalogue.md").read_text() == page()


def test_every_row_says_what_it_does() -> None:
    rows = [row for table in TABLES.values() for row in table.values()]
    assert all(row.does for row in rows)


def test_the_page_shows_an_extensions_rows_as_well() -> None:
    idea = ROOT / "experiments" / "ideas" / "log_scale.py"
    done = subprocess.run(
        [sys.executable, "-m", "mpdit.catalogue", str(idea)], capture_output=True, text=True
    )
    assert "log_scale" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_to_files(page: Path) -> None:
    targets = LINK.findall(page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []
