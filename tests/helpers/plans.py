"""A study of small runs as text, and its plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from mpdit.config import DEFAULTS
from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError
from mpdit.grid.grid import Grid, load_grid, parse_grid
from mpdit.grid.plan import Plan, make_plan
from mpdit.grid.resources import NOTHING, Resources

BASE = """\
study: s
base:
  data: digits
  model: {depth: 4, width: 64, heads: 4, patch_size: 2}
  train: {steps: 10}
"""


def grid_from_text(
    text: str, name: str = "grid", set_texts: Sequence[str] = (), site: Resources = NOTHING
) -> Grid:
    """As ``load_grid``, from a text."""
    return parse_grid(text, parse(text, name), set_texts, site=site)


def plan(text: str, *sets: str, base: str = BASE) -> Plan:
    return make_plan(grid_from_text(base + text, "grid.yaml", sets))


def load_plan(file: Path, set_texts: Sequence[str] = (), defaults: int = DEFAULTS) -> Plan:
    """A grid file's plan."""
    return make_plan(load_grid(file, set_texts), defaults)


def refusal(text: str, *sets: str, base: str = BASE) -> str:
    """The message of the grid's error."""
    with pytest.raises(ConfigError) as caught:
        plan(text, *sets, base=base)
    return str(caught.value)


def variants(made: Plan) -> list[str]:
    return list(dict.fromkeys(run.variant for run in made.runs))
