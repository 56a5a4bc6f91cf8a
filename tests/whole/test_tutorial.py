"""The commands of docs/tutorial.md work as they are printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LONG, SHORT = "steps: 200, batch_size: 32", "steps: 20, batch_size: 8"
"""What the page trains, and what is enough for a test."""


@pytest.mark.slow
def test_the_tutorials_commands_lead_to_answers(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    page = (ROOT / "docs" / "tutorial.md").read_text()
    assert page.count(LONG) == 1
    blocks = BLOCK.findall(page.replace(LONG, SHORT))
    script = "\n".join(("set -eu", *blocks))
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=environment, check=True)
    study = tmp_path / "results" / "tutorial"
    assert len(list(study.glob("*/evaluation.jsonl"))) == 6
    assert (study / "report" / "report.html").stat().st_size > 100_000
    assert (tmp_path / "threes.png").exists()
