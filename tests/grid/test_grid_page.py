"""The page on the grid language tells the truth: every example makes the variants it says."""

from __future__ import annotations

import re

import pytest

from mpdit.grid.plan import make_plan
from tests.helpers import ROOT
from tests.helpers.plans import grid_from_text, load_plan

EXPERIMENTS = ROOT / "experiments"
PAGE = (EXPERIMENTS / "README.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```\n```text\n(.*?)```", PAGE, re.DOTALL)
BASE = """
study: page
base:
  data: digits
  model: {depth: 4, width: 64, heads: 4, patch_size: 2}
  train: {steps: 1000}
"""


def test_every_example_is_followed_by_its_variants() -> None:
    assert len(EXAMPLES) == PAGE.count("```yaml") >= 9


@pytest.mark.parametrize(("example", "expected"), EXAMPLES)
def test_an_example_makes_the_variants_that_the_page_lists(example: str, expected: str) -> None:
    text = example if example.startswith("study:") else BASE + example
    grid = grid_from_text(text, str(EXPERIMENTS / "page.yaml"))
    variants = dict.fromkeys(run.variant for run in make_plan(grid).runs)
    assert list(variants) == expected.split()


def test_the_example_of_tuning_makes_the_six_runs_it_says() -> None:
    example = next(text for text, _ in EXAMPLES if "tune:" in text)
    runs = make_plan(grid_from_text(BASE + example)).runs
    assert len(runs) == 6
    assert {run.variant for run in runs} == {"plain", "cosine"}
    assert "plain_lr-0.0003_s0" in runs[0].name


@pytest.mark.parametrize(
    ("name", "runs", "variants"),
    [
        ("quickstart", 35, 7),
        ("ladder", 30, 10),
        ("modulation", 15, 5),
        ("factorial", 160, 80),
        ("fashion", 24, 8),
    ],
)
def test_a_shipped_study_makes_the_runs_it_should(name: str, runs: int, variants: int) -> None:
    plan = load_plan(EXPERIMENTS / f"{name}.yaml")
    assert (plan.study, len(plan.runs)) == (name, runs)
    assert len({run.variant for run in plan.runs}) == variants
    assert not plan.merged


def test_table_2_has_the_parameter_counts_of_the_paper() -> None:
    runs = load_plan(EXPERIMENTS / "modulation.yaml").runs
    parameters = {run.variant: run.parameters for run in runs}
    assert parameters["adaln"] == 32_794_443
    assert parameters["rotation"] == 27_264_818
    assert parameters["rotation_scale"] == 31_024_971
    assert parameters["rotation_scale-everywhere"] == 30_951_243


def test_table_1_has_the_parameter_counts_of_the_flags_generation() -> None:
    runs = load_plan(EXPERIMENTS / "ladder.yaml").runs
    parameters = {run.variant: run.parameters for run in runs}
    assert parameters["A-none_DiT-XS-2"] == 7_608_832
    assert parameters["E-all_DiT-XS-2"] == 7_864_840
    assert parameters["A-none_DiT-S-4"] == 32_898_816
    assert parameters["E-all_DiT-S-4"] == 33_282_830
