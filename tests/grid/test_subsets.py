"""``fraction:``, the part of a crossed grid that is run."""

from __future__ import annotations

import pytest

from mpdit.errors import ConfigError
from tests.helpers.plans import plan

GRID = """
grid:
  cosine_attention: [false, true]
  weight_normalization: [false, true]
  forced_weight_normalization: [false, true]
  mp_silu: [false, true]
  mp_residual: [false, true]
exclude: [{forced_weight_normalization: true, weight_normalization: false}]
seeds: 2
"""


def test_a_fraction_is_a_part_of_the_same_runs() -> None:
    whole = {run.id for run in plan(GRID).runs}
    main, both = (plan(GRID + f"fraction: {what}\n") for what in ("main", "two-way"))
    assert {run.id for run in main.runs} < whole
    assert len(main.runs) == 2 * 6
    assert len(both.runs) == 2 * 15  # 1 + 5 + 9: one pair of flags has no interaction
    assert main.grid.declared.fraction == "main"
    assert both.fraction is not None
    assert [both.fraction.factors[i] for i in both.fraction.found.missing[0]] == [
        "weight_normalization",
        "forced_weight_normalization",
    ]


def test_a_number_of_variants_estimates_what_it_can() -> None:
    assert plan(GRID + "fraction: 8\n").grid.declared.fraction == "main"
    assert plan(GRID + "fraction: 20\n").grid.declared.fraction == "two-way"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fraction: 4", "of 5 factors need 6 variants at least: write 'fraction: 6'"),
        ("fraction: 25", "the grid has 24 variants: write no fraction to run all"),
        ("fraction: twoway", "should be main, two-way or a number of variants, not 'twoway'"),
        ("fraction: true", "should be main, two-way or a number of variants, not True"),
        ("fraction: main\nvariants: {a: {}}", "crosses two axes or more, without named variants"),
    ],
)
def test_a_fraction_that_cannot_be_is_one_message_with_the_nearest_that_can(
    text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        plan(GRID + text + "\n")
    assert "grid.yaml:15: fraction: " in str(error.value)
    assert said in str(error.value)
