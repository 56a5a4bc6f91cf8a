"""The docs' tables are the package's, and every file that docs/adding.md names is one."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from analysis.figures import style
from mpdit.catalogue import (
    DATASETS,
    FLAGS,
    TABLES,
    dataset,
    flag,
    metric,
    objective,
    part,
    solver,
)
from mpdit.catalogue.__main__ import ENVIRONMENT, page
from mpdit.config import SECTIONS, known_keys
from mpdit.flops import count_parameters, forward_flops
from mpdit.model import DiT
from mpdit.modelconfig import PRESETS, ModelConfig
from tests.helpers import ROOT
from tests.helpers.plans import plan

DOCS = ROOT / "docs"
LINK = re.compile(r"\]\(((?:\.\./|[\w-]+/|[\w-]+\.)[^)#]*)\)")


def test_the_page_of_all_tables_is_the_one_that_the_tables_make() -> None:
    assert (DOCS / "catalogue.md").read_text() == page()


def test_the_page_has_every_key_that_a_grid_may_set() -> None:
    keys = set(known_keys()) - {"seed", *SECTIONS} - {f"model.{flag}" for flag in FLAGS}
    assert {key for key in keys if f"`{key}`" not in page()} == set()
    assert {flag for flag in FLAGS if f"| {flag} " not in page()} == set()


@pytest.mark.parametrize(
    ("key", "value", "takes"),
    [
        ("time", "12:00:00", "or text"),
        ("gpus", "a100:2", "or text"),
        ("memory", "0", "or `0`"),
        ("setup", "module load cuda", "or text"),
    ],
)
def test_the_page_describes_every_kind_of_value_that_a_resource_takes(
    key: str, value: str, takes: str
) -> None:
    assert plan(f"slurm: {{{key}: {value}}}").runs
    [row] = re.findall(rf"^\| `{key}` .*", page(), re.MULTILINE)
    assert takes in row.split("|")[3]


def test_the_page_has_every_environment_variable() -> None:
    sources = [file.read_text() for file in (ROOT / "mpdit").rglob("*.py")]
    used = {name for text in sources for name in re.findall(r"\bMPDIT_[A-Z][A-Z0-9]*", text)}
    assert used == set(ENVIRONMENT)


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


def test_the_page_on_ideas_has_every_argument_of_the_decorators() -> None:
    text = (DOCS / "adding.md").read_text()
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ")]
    known = [(name, argument) for kind, arguments in rows for name in kind.split(",")
             for argument in arguments.split(",")]  # fmt: skip
    said = {(name.strip(" `@"), argument.strip(" `*")) for name, argument in known}
    for decorator in (dataset, flag, metric, objective, part, solver):
        arguments = [*inspect.signature(decorator).parameters]
        missing = {a for a in arguments if not {(decorator.__name__, a), ("all", a)} & said}
        assert missing == set(), decorator.__name__


def test_the_page_on_ideas_shows_an_example_that_a_grid_uses() -> None:
    code = (ROOT / "experiments" / "ideas" / "squared_relu.py").read_text()
    [shown] = re.findall(r"```python\n(.*?)```", (DOCS / "adding.md").read_text(), re.DOTALL)
    assert code.endswith(shown)
    assert "ideas/squared_relu.py" in (ROOT / "experiments" / "ideas.yaml").read_text()


def test_the_page_on_ideas_has_the_models_modules_and_the_shapes_of_their_weights() -> None:
    [tree] = re.findall(r"```text\nDiT(.*?)```", (DOCS / "adding.md").read_text(), re.DOTALL)
    config = {"depth": 2, "width": 64, "heads": 4, "patch_size": 2}
    shape = DATASETS["digits"].shape
    assert shape is not None
    model = DiT(ModelConfig.model_validate(config), shape)
    children = [name for _, module in model.named_modules() for name, _ in module.named_children()]
    assert {name for name in children if not name.isdecimal() and name not in tree} == set()
    for name, weight in model.named_parameters():
        assert " × ".join(map(str, weight.shape)) in tree, name


def test_every_row_says_what_it_does() -> None:
    rows = [row for table in TABLES.values() for row in table.values()]
    assert all(row.does for row in rows)


def test_the_page_shows_an_extensions_rows_as_well() -> None:
    idea = ROOT / "experiments" / "ideas" / "log_scale.py"
    done = subprocess.run(
        [sys.executable, "-m", "mpdit.catalogue", str(idea)], capture_output=True, text=True
    )
    assert "log_scale" in done.stdout, done.stderr


def test_the_pages_command_has_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mpdit.catalogue", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "EXTENSION" in done.stdout


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted(DOCS.glob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_to_files(page: Path) -> None:
    targets = LINK.findall(page.read_text())
    assert [t for t in targets if not (page.parent / t).exists()] == []


OTHER_WORDS = re.compile(
    r"launch\.py [a-z]|python -m (analysis|mpdit\.(sample|evaluate|ema|data|official|catalogue))\b"
)
"""Commands that do the same as ``mpdit COMMAND``. ``torchrun -m mpdit.data`` has no such form."""


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted(DOCS.glob("*.[ms][dv]*"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_the_pages_write_each_command_as_mpdit(page: Path) -> None:
    if page.name != "command.md":
        assert OTHER_WORDS.findall(page.read_text()) == []


@pytest.mark.parametrize("page", ["analysis.md", "api.md", "python.md"])
def test_the_python_of_a_page_works(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    shutil.copytree(ROOT / "results" / "published" / "quickstart", results / "quickstart")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(style, "RC", dict(style.RC))
    monkeypatch.setattr(style, "COLUMN", style.COLUMN)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    codes = [block for block in blocks if "mpdit.load(" not in block]  # needs a trained model
    assert any("analysis.load(" in code for code in codes)
    for code in codes:
        exec(code, {})
