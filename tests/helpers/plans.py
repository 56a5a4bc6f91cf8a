"""A study of small runs as text, and its plan."""

from __future__ import annotations

from mpdit.grid.grid import grid_from_text
from mpdit.grid.plan import Plan, make_plan

BASE = """\
study: s
base:
  data: digits
  model: {depth: 4, width: 64, heads: 4, patch_size: 2}
  train: {steps: 10}
"""


def plan(text: str, *sets: str) -> Plan:
    return make_plan(grid_from_text(BASE + text, "grid.yaml", sets))
