"""The grid language: what is written becomes these runs."""

from __future__ import annotations

import pytest

from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError
from tests.helpers.plans import plan, variants


def test_ladder_steps_add_up_and_variants_do_not() -> None:
    made = plan(
        "ladder: {A: {}, B: {mp_silu: true}, C: {mp_residual: true}}\n"
        "variants: {D: {no_layernorm: true}, E: {from: C, cosine_attention: true}}"
    )
    flags = {run.variant: run.config.model.flags for run in made.runs}
    assert flags == {
        "A": (),
        "B": ("mp_silu",),
        "C": ("mp_residual", "mp_silu"),
        "D": ("no_layernorm",),
        "E": ("cosine_attention", "mp_residual", "mp_silu"),
    }


def test_a_variant_may_start_from_one_that_is_written_below_it() -> None:
    made = plan("variants: {B: {from: A, mp_silu: true}, A: {cosine_attention: true}}")
    assert made.runs[0].config.model.flags == ("cosine_attention", "mp_silu")


def test_named_variants_are_one_list_in_the_files_order() -> None:
    made = plan(
        "leave_one_out: [mp_silu, mp_residual]\nvariants: {V: {model.depth: 2}}\nladder: {A: {}}"
    )
    assert variants(made) == ["full", "no-mp_silu", "no-mp_residual", "V", "A"]


def test_what_is_left_out_of_a_mapping_falls_back_to_the_base() -> None:
    made = plan("leave_one_out: {model.depth: 8, train.learning_rate: 1e-3}")
    depths = {run.variant: run.config.model.depth for run in made.runs}
    assert depths == {"full": 8, "no-depth": 4, "no-learning_rate": 8}


def test_axes_multiply_the_variants() -> None:
    made = plan(
        "variants: {A: {}, B: {mp_silu: true}}\n"
        "grid: {model.conditioning: [adaln, rotation]}\n"
        "zip: [{model.depth: [2, 3], model.width: [64, 128]}, {train.batch_size: [8, 16]}]\n"
        "tune: {train.learning_rate: [1e-3, 1e-4]}\n"
        "seeds: [3, 5, 7]"
    )
    assert len(made.runs) == 2 * 2 * 2 * 2 * 2 * 3
    sizes = {(run.config.model.depth, run.config.model.width) for run in made.runs}
    assert sizes == {(2, 64), (3, 128)}
    first = made.runs[0]
    assert first.name == f"A_adaln_depth-2_width-64_batch-8_lr-0.001_s3-{first.id}"
    assert first.variant == "A_adaln_depth-2_width-64_batch-8"
    assert first.tune == {"train.learning_rate": 1e-3}
    assert first.axes == {
        "model.conditioning": "adaln",
        "model.depth": 2,
        "model.width": 64,
        "train.batch_size": 8,
    }


def test_a_later_name_makes_nothing_of_earlier_sizes_and_is_overridden_by_later_ones() -> None:
    made = plan(
        "variants: {named: {model.name: DiT-S/4}, deeper: {from: named, model.depth: 2}}\n"
        "grid: {model.patch_size: [2, 4]}"
    )
    sizes = [
        (run.config.model.depth, run.config.model.width, run.config.model.patch_size)
        for run in made.runs
    ]
    assert sizes == [(12, 384, 2), (12, 384, 4), (2, 384, 2), (2, 384, 4)]


def test_exclusions_leave_out_what_meets_all_their_conditions() -> None:
    made = plan(
        "variants: {A: {}, B: {mp_silu: true}}\n"
        "grid: {model.conditioning: [adaln, rotation, none]}\n"
        "exclude:\n"
        "  - {variant: B, model.conditioning: [rotation, none], reason: no need}\n"
        "  - {mp_silu: true, model.depth: 5}\n"
    )
    assert variants(made) == ["A_adaln", "A_rotation", "A_none", "B_adaln"]
    first, second = made.excluded
    assert (first.labels, first.runs) == (("B_rotation", "B_none"), 2)
    assert first.exclusion.reason == "no need"
    assert second.runs == 0


def test_an_exclusion_sees_defaults_and_what_a_name_stands_for() -> None:
    made = plan(
        "grid: {model.name: [DiT-XS/2, DiT-S/2]}\n"
        "exclude: [{model.depth: 12, model.conditioning: adaln, weight_normalization: false}]"
    )
    assert variants(made) == ["DiT-XS-2"]


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ('model.depth: ">=4"', [2, 3]),
        ('model.depth: "> 4"', [2, 3, 4]),
        ('model.depth: "<4"', [4, 5]),
        ('model.depth: "<=4.0"', [5]),
        ('model.depth: "!=3"', [3]),
        ('model.depth: ["<3", 4]', [3, 5]),
        ('model.depth: ">2", model.conditioning: adaln', [2]),
        ('train.warmup_steps: ">1_000_000"', [2, 3, 4, 5]),
    ],
)
def test_an_exclusion_compares_numbers(condition: str, left: list[int]) -> None:
    made = plan(f"grid: {{model.depth: [2, 3, 4, 5]}}\nexclude: [{{{condition}}}]")
    assert [run.config.model.depth for run in made.runs] == left
    assert made.excluded[0].exclusion.text == f"{{{condition}}}"


def test_an_exclusion_compares_what_a_name_stands_for_and_seeds() -> None:
    made = plan(
        "grid: {model.name: [DiT-XS/2, DiT-S/2]}\nseeds: 3\n"
        'exclude: [{model.depth: ">=12"}, {seed: "!=1"}]'
    )
    assert [(run.variant, run.seed) for run in made.runs] == [("DiT-XS-2", 1)]


def test_runs_that_come_out_the_same_are_kept_once_and_listed() -> None:
    made = plan(
        "ladder: {A: {}, all: {mp_silu: true, mp_residual: true}}\n"
        "leave_one_out: [mp_silu, mp_residual]\nseeds: 2"
    )
    assert variants(made) == ["A", "all", "no-mp_silu", "no-mp_residual"]
    assert [(m.label, m.kept, m.runs) for m in made.merged] == [("full", "all", 2)]


def test_set_goes_over_every_run() -> None:
    made = plan(
        "variants: {A: {train.steps: 5}, B: {train.steps: 6, mp_silu: true}}\nseeds: 3",
        "train.steps=7",
        "seeds=[4]",
        "train.ema_stds=[0.05, 0.2]",
    )
    assert [run.config.train.steps for run in made.runs] == [7, 7]
    assert {run.seed for run in made.runs} == {4}
    assert made.runs[0].config.train.ema_stds == (0.05, 0.2)


def test_only_takes_runs_by_name_or_variant() -> None:
    made = plan("variants: {A-x: {}, B: {mp_silu: true}}\nseeds: 2")
    assert [run.variant for run in made.only("A-*").runs] == ["A-x", "A-x"]
    assert [run.seed for run in made.only("*_s1-*").runs] == [1, 1]
    assert [run.seed for run in made.only("*_s1").runs] == [1, 1]
    assert [(run.variant, run.seed) for run in made.only("B_s1").runs] == [("B", 1)]
    assert len(made.only("A-*", "B_s0-*").runs) == 3
    with pytest.raises(ConfigError, match=r"matches none of the 4 runs.*Did you mean 'B_s1'"):
        made.only("B_s11")
    with pytest.raises(ConfigError, match=r"matches none of the 4 runs.*Did you mean 'A-x'"):
        made.only("B", "A-y")


def test_resources_of_a_variant_go_over_the_studys() -> None:
    made = plan(
        "variants:\n  A: {}\n  B: {mp_silu: true, slurm: {time: 1-00:00:00, extra: {nice: 3}}}\n"
        "slurm: {time: 1:30:00, gpus: 2, extra: {exclusive: true}}"
    )
    ours, theirs = (run.resources for run in made.runs)
    assert (ours.time, ours.gpus, ours.extra) == (90, 2, {"exclusive": True})
    assert (theirs.time, theirs.gpus) == (1440, 2)
    assert theirs.extra == {"exclusive": True, "nice": 3}
    assert made.runs[0].id == plan("variants: {A: {}}").runs[0].id


def test_scalars_mean_what_they_look_like() -> None:
    tree = parse("[1e-3, 400_000, 1:30:00, on, no, true, ~, '3', 010, .5, -2, 1_0.5]").tree
    assert tree == [1e-3, 400_000, "1:30:00", "on", "no", True, None, "3", 10, 0.5, -2, 10.5]


def test_a_merged_mapping_gives_way_to_the_mappings_own_keys() -> None:
    made = plan(
        "variants:\n  A: &a {model.depth: 2, mp_silu: true}\n  B: &b {model.width: 32}\n"
        "  C: {model.depth: 3, <<: *a}\n  D: {<<: [{model.depth: 6}, *a, *b]}\n  E: *b\n"
    )
    sizes = {run.variant: (run.config.model.depth, run.config.model.width) for run in made.runs}
    assert sizes == {"A": (2, 64), "B": (4, 32), "C": (3, 64), "D": (6, 32)}
    assert [merged.label for merged in made.merged] == ["E"]
    assert all(run.config.model.mp_silu for run in made.runs if run.variant in "ACD")


def test_a_merged_key_has_the_line_where_it_was_written() -> None:
    text = parse("a: &a\n  x: 1\n  y:\n    - 2\nb:\n  <<: *a\n  x: 3\nc: {'<<': *a}")
    assert text.tree["b"] == {"x": 3, "y": [2]}
    assert text.tree["c"] == {"<<": {"x": 1, "y": [2]}}
    lines = {where: text.lines["b", *where] for where in [("x",), ("y",), ("y", 0)]}
    assert lines == {("x",): 7, ("y",): 3, ("y", 0): 4}
