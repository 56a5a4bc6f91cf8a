"""``fraction:``, the part of a crossed grid that is run."""

from __future__ import annotations

import pytest

from mpdit.errors import ConfigError
from mpdit.grid.grid import Grid, load_grid
from mpdit.grid.plan import make_plan
from mpdit.grid.settings import fold, to_run
from mpdit.modelconfig import ModelConfig
from tests.helpers import ROOT
from tests.helpers.plans import load_plan, plan, refusal

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


def test_the_command_line_can_change_the_part_that_is_run() -> None:
    text = GRID + "fraction: main\n"
    assert {run.id for run in plan(text, "fraction=all").runs} == {r.id for r in plan(GRID).runs}
    assert len(plan(text, "fraction=20", "seeds=1").runs) == 20
    assert plan(text, "margin=2%").grid.declared.margin == 0.02


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fraction: 4", "of 5 factors need 6 variants at least: write 'fraction: 6'"),
        ("fraction: 25", "the grid has 24 variants: write no fraction to run all"),
        ("fraction: twoway", "should be main, two-way, all or a number of variants, not 'twoway'"),
        ("fraction: true", "should be main, two-way, all or a number of variants, not True"),
        ("fraction: 0", "should be main, two-way, all or a number of variants, not 0"),
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "fraction: main\nexclude: [{mp_silu: true}]\n",
            "the exclusions leave fewer than two axes to cross: write no fraction",
        ),
        (
            "fraction: two-way\nexclude: [{mp_silu: true, mp_residual: true}]\n",
            "no two factors have all their combinations, so that no interaction can be estimated: "
            "write 'fraction: main'",
        ),
        ("seeds: {looks: [3, 5]}\nfraction: main\n", "write a number of seeds"),
    ],
)
def test_what_exclusions_leave_too_little_of_is_one_message(text: str, said: str) -> None:
    error = refusal("grid: {mp_silu: [false, true], mp_residual: [false, true]}\n" + text)
    assert said in error


def model_of(grid: Grid, **wanted: str) -> ModelConfig:
    """The model of a grid's cell: of each axis the choice with a wanted value, else the first."""
    cell = {key: setting for axis in grid.axes for key, setting in axis.choices[0].items()}
    for axis in grid.axes:
        for choice in axis.choices:
            name = axis.keys[0].removeprefix("model.")
            cell |= choice if choice[axis.keys[0]].value == wanted.get(name) else {}
    return to_run(fold([grid.base, cell]), seed=0).model


@pytest.mark.long
def test_the_controls_tell_what_magnitude_preservation_does_against_each_of_its_rivals() -> None:
    grid = load_grid(ROOT / "experiments" / "controls.yaml")
    made = make_plan(grid)
    assert made.fraction is not None
    found, factors = made.fraction.found, made.fraction.factors
    assert found.effects == "two-way"
    assert len(found.rows) < found.cells / 10
    preset = factors.index("model.preset")
    rivals = {factors[b] for a, b in (t for t in found.ratios if len(t) == 2) if a == preset}
    assert rivals | {"train.weight_decay"} == {*factors} - {"model.preset"}
    assert [tuple(factors[i] for i in pair) for pair in found.missing] == [
        ("model.preset", "train.weight_decay")  # forced normalization undoes the decay
    ]
    # both ends are models of the study "tuned"
    ladder = {
        run.named: run.config.model for run in load_plan(ROOT / "experiments" / "tuned.yaml").runs
    }
    assert model_of(grid) == ladder["A-none"]
    assert model_of(grid, preset="mods", norm="none", qk_norm="cosine") == ladder["E-all"]
