"""A study of small runs as text, and its plan."""

from __future__ import annotations

from collections.abc import Sequence

from mpdit.disk.yamlfile import parse
from mpdit.grid.grid import Grid, parse_grid
from mpdit.grid.plan import Plan, make_plan

BASE = """\
study: s
base:
  data: digits
  model: {depth: 4, width: 64, heads: 4, patch_size: 2}
  train: {steps: 10}
"""


def grid_from_text(text: str, name: str = "grid", set_texts: Sequence[str] = ()) -> Grid:
    """As ``load_grid``, from a text."""
    return parse_grid(text, parse(text, name), set_texts)


def plan(text: str, *sets: str) -> Plan:
    return make_plan(grid_from_text(BASE + text, "grid.yaml", sets))
