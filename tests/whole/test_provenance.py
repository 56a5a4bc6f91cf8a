"""A run submitted from one of several checkouts: its provenance names all of its code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpdit.disk.rundir import RunDir
from tests.helpers.launching import git, make_checkout

GRID = """\
study: s
extensions: [idea.py]
base:
  data: digits
  model: {depth: 1, width: 16, heads: 2, patch_size: 4, quiet: true}
  train: {steps: 4, batch_size: 8}
  sample: {count: 10, steps: 2, batch_size: 10}
"""
IDEA = """\
from mpdit.catalogue import flag
from ideas.words import DOES

@flag("quiet", code="q", does=DOES)
def quiet(model):
    print("quiet is applied")
"""


@pytest.mark.long
def test_a_run_of_one_of_several_checkouts_records_all_of_its_code(tmp_path: Path) -> None:
    checkout, elsewhere = make_checkout(tmp_path / "checkout"), make_checkout(tmp_path / "other")
    head = git(checkout, "rev-parse", "HEAD")
    edited = checkout / "mpdit" / "run.py"
    edited.write_text(edited.read_text() + "\n# edited\n")
    (checkout / "mpdit" / "new.py").write_text("")
    (checkout / "ideas").mkdir()
    (checkout / "ideas" / "words.py").write_text('DOES = "nothing"')
    (tmp_path / "idea.py").write_text(IDEA)
    (tmp_path / "grid.yaml").write_text(GRID)
    # the environment has the repository under test installed, and a third checkout is at hand
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    words = ["submit", "../grid.yaml", "--cluster", "local", "--wait", "--results", "../results"]
    done = subprocess.run(
        [sys.executable, checkout / "launch.py", *words],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = (tmp_path / "results" / "s").glob("*/provenance.json")
    run = RunDir(file.parent)
    (start,) = json.loads(file.read_bytes())["starts"]
    (snapshot,) = (tmp_path / "results" / "s" / ".code").iterdir()
    assert "quiet is applied" in run.log.read_text()
    assert (start["code"], start["checkout"]) == (head, str(checkout))
    assert (start["code_snapshot"], start["imported_from"]) == (snapshot.name, str(snapshot))
    assert start["untracked"] == {
        "ideas/words.py": hashlib.sha256(b'DOES = "nothing"').hexdigest(),
        "mpdit/new.py": hashlib.sha256(b"").hexdigest(),
    }
    assert "+# edited" in (run.path / f"uncommitted-{start['diff_sha']}.diff").read_text()
    assert len(start["code_hash"]) == 12
