"""Grids beside a file of ideas."""

from __future__ import annotations

from pathlib import Path

from tests.helpers import ROOT

IDEAS = ROOT / "experiments" / "ideas"
GRID = """\
study: s
extensions: [idea.py]
base:
  data: digits
  model: {depth: 1, width: 16, heads: 2, patch_size: 4}
  train: {steps: 4, batch_size: 8}
  sample: {count: 20, steps: 2}
grid: {sigmoid_attention: [false, true]}
"""


def write_grid(folder: Path, idea: str | None = None, grid: str = GRID) -> Path:
    """A grid beside its extension."""
    text = (IDEAS / "sigmoid_attention.py").read_text() if idea is None else idea
    (folder / "idea.py").write_text(text)
    (folder / "grid.yaml").write_text(grid)
    return folder / "grid.yaml"
