"""The notebooks run from top to bottom, and are committed with what they show."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from analysis.loading import published
from analysis.loading.load import load
from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["01-quickstart", "02-magnitudes", "03-statistics", "04-samples"]
GRID = """
study: quickstart
base:
  data: digits
  model: {depth: 2, width: 32, heads: 2, patch_size: 4}
  train: {steps: 40, batch_size: 16, snapshot_every: 10, probe_every: 10, log_every: 10}
  sample: {count: 70, steps: 4}
ladder:
  A-none: {}
  B-cosine: {cosine_attention: true}
variants:
  B-rotation: {from: B-cosine, model.conditioning: rotation}
seeds: 2
"""


def cells(notebook: dict[str, Any], kind: str = "code") -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


def shown(cell: dict[str, Any]) -> set[str]:
    """The kinds of a cell's outputs: MIME types, ``stream``, ``error``."""
    return {
        kind
        for output in cell["outputs"]
        for kind in output.get("data", {output["output_type"]: None})
    }


def test_the_four_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_as_it_ran_with_outputs_that_need_no_kernel(path: Path) -> None:
    notebook = json.loads(path.read_text())
    counts = [cell["execution_count"] for cell in cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    kinds = [shown(cell) for cell in cells(notebook)]
    assert all("error" not in kind for kind in kinds)
    assert any("image/png" in kind for kind in kinds)
    for number, kind in enumerate(kinds):  # what a slider shows, a figure after it shows too
        if "application/vnd.jupyter.widget-view+json" in kind:
            assert "image/png" in kinds[number + 1]
    assert path.stat().st_size < 1_000_000
    assert all(str(place) not in path.read_text() for place in (ROOT, Path.home(), sys.prefix))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_uses_of_the_package_is_there(path: Path) -> None:
    """The notebooks themselves run in minutes, and in CI only."""
    code = "\n".join("".join(cell["source"]) for cell in cells(json.loads(path.read_text())))
    nodes = list(ast.walk(ast.parse(code.replace("%matplotlib inline", ""))))
    imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    names: dict[str, Any] = {}
    exec("\n".join(map(ast.unparse, imports)), names)
    used = [
        (node.value.id, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    ours = [
        (name, attribute) for name, attribute in used if isinstance(names.get(name), ModuleType)
    ]
    assert ours
    assert [pair for pair in ours if not hasattr(names[pair[0]], pair[1])] == []


def test_the_quickstart_goes_from_grid_to_table_in_ten_cells() -> None:
    code = cells(json.loads(NOTEBOOKS[0].read_text()))
    ladder = next(i for i, cell in enumerate(code) if "tables.ladder" in "".join(cell["source"]))
    assert ladder < 10


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like the repository's root, whose published studies are one that is trained here."""
    root = tmp_path_factory.mktemp("root")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    grid = root / "experiments" / "quickstart.yaml"
    grid.parent.mkdir()
    grid.write_text(GRID)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], cwd=root, env=environment, check=True)

    python(str(ROOT / "launch.py"), "submit", str(grid), "--cluster", "local", "--wait", "--yes")
    for run in load(root / "results/quickstart").runs["run"][::2]:  # one seed's
        folder = str(root / "results/quickstart" / run)
        python("-m", "mpdit.evaluate", folder, "--ema-std", "0.05", "0.1")
    for name in ("quickstart", "tuned"):
        published.write(load(root / "results/quickstart"), root / "results/published" / name)
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_from_top_to_bottom(
    place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    folder = place / "notebooks"
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    for cell in cells(notebook):
        cell["outputs"], cell["execution_count"] = [], None
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    assert any("image/png" in shown(cell) for cell in cells(notebook))
