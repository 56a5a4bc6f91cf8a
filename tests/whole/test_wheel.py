"""What pip installs works outside any checkout: plan, submit, status, report."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.helpers import ROOT

GRID = """\
study: tiny
base:
  data: digits
  model: {depth: 1, width: 16, heads: 2, patch_size: 4}
  train: {steps: 6, batch_size: 8, log_every: 2}
  sample: {count: 20, steps: 2, solver: ddim}
seeds: 1
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment with the wheel; its libraries are this one's."""
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # setuptools would write into the checkout
    source.mkdir()
    for name in ("mpdit", "analysis", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
    subprocess.run([*pip, "wheel", *made], check=True)
    (wheel,) = folder.glob("mpdit-*.whl")
    place = folder / "venv"
    venv.create(place, symlinks=True)
    packages = sysconfig.get_path("purelib", vars={"base": str(place)})
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    target = [*pip, "--python", str(place), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(target, env=bare, check=True)
    (Path(packages) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return place / "bin"


def run(installed: Path, here: Path, *words: str) -> str:
    """What a command prints where the environment is active."""
    path = f"{installed}{os.pathsep}{os.environ['PATH']}"
    left = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(words), cwd=here, env={**left, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_installed_program_plans_runs_and_reports_a_study(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.yaml").write_text(GRID)
    where = run(
        installed, tmp_path, "python", "-c", "import mpdit, analysis; print(mpdit, analysis)"
    )
    assert where.count(str(installed.parent)) == 2
    assert "1 run:" in run(installed, tmp_path, "mpdit", "plan", "tiny.yaml")
    said = run(installed, tmp_path, "mpdit", "submit", "tiny.yaml", "--cluster", "local", "--wait")
    last = said.splitlines()[-1].split()
    assert last == ["next:", "mpdit", "report", "tiny"]
    (snapshot,) = (tmp_path / "results" / "tiny" / ".code").iterdir()
    assert (snapshot / "mpdit" / "run.py").is_file()
    run(installed, tmp_path, *last[1:])
    assert (tmp_path / "results" / "tiny" / "report" / "report.html").is_file()
