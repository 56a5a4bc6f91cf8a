"""The docs' tables are the package's, and every file that docs/adding.md names is one."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mpdit.catalogue import DATASETS, TABLES
from mpdit.catalogue.__main__ import page
from mpdit.flops import count_parameters, forward_flops
from mpdit.modelconfig import PRESETS, ModelConfig
from tests.helpers import ROOT

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(((?:\.\./|[\w-]+/|[\w-]+\.)[^)#]*)\)")


def test_the_page_of_all_tables_is_the_one_that_the_tables_make() -> None:
    assert (DOCS / "catalogue.md").read_text() == page()


def test_the_costs_of_the_official_generations_are_the_counted_ones() -> None:
    data = DATASETS["imagenet128-latents"].shape

    def costs(**options: object) -> tuple[int, int]:
        model = ModelConfig.model_validate({"name": "DiT-S/2", **options})
        return sum(count_parameters(model, data).values()), forward_flops(model, data)

    lines = (DOCS / "official.md").read_text().replace("−", "-").splitlines()
    tables = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in lines if "|" in line]
    presets = {row[0]: row for row in tables if row[0] in PRESETS}
    assert presets.keys() == PRESETS.keys()
    for preset, row in presets.items():
        parameters, flops = costs(preset=preset)
        assert row[3].startswith(f"{parameters:,}")
        assert float(row[4]) == pytest.approx(flops / 1e9, abs=5e-4)
    options = [row for row in tables if len(row) == 7 and row[4] and row[0] in PRESETS["final"]]
    assert {row[0] for row in options} == {
        name
        for name, value in PRESETS["final"].items()
        if value != PRESETS["mods"].get(name, ModelConfig.model_fields[name].default)
    }
    whole = costs(preset="final")
    for name, _, _, _, back, parameters, megaflops in options:
        model = costs(preset="final", **{name: yaml.safe_load(back)})
        assert int(parameters.replace(",", "")) == model[0] - whole[0], name
        assert float(megaflops) == pytest.approx((model[1] - whole[1]) / 1e6, abs=5e-3), name


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
