"""The page on adding a flag or a conditioning mode does what it says, run from top to bottom."""

import re
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

PAGE = (ROOT / "docs" / "adding.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_pages_code_runs_and_its_assertions_hold(tmp_path: Path) -> None:
    assert len(BLOCKS) >= 8
    script = tmp_path / "page.py"
    script.write_text("\n".join(BLOCKS))
    # a process of its own: the page adds to the package's tables
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_page_asserts_what_it_promises() -> None:
    assert sum(block.count("assert ") for block in BLOCKS) >= 8
