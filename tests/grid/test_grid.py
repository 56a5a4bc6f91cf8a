"""The grid language: what is written becomes these runs; what is wrong is said with its line."""

from __future__ import annotations

import itertools
import math
import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import RunConfig
from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError
from mpdit.grid.plan import Plan, load_plan, make_plan
from tests.helpers.plans import grid_from_text

BASE = """\
study: s
base:
  data: digits
  model: {depth: 4, width: 64, heads: 4, patch_size: 2}
  train: {steps: 1000}
"""


def plan(text: str, *sets: str) -> Plan:
    return make_plan(grid_from_text(BASE + text, "grid.yaml", sets))


def variants(made: Plan) -> list[str]:
    return list(dict.fromkeys(run.variant for run in made.runs))


def refusal(text: str, *sets: str, base: str = BASE) -> str:
    with pytest.raises(ConfigError) as caught:
        make_plan(grid_from_text(base + text, "grid.yaml", sets))
    return str(caught.value)


# What is written becomes these runs --------------------------------------------------------------


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
    with pytest.raises(ConfigError, match=r"matches none of the 4 runs.*Did you mean 'A-x'"):
        made.only("A-y")


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


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("90:30", 91), ("1:30:00", 90), ("2-12", 3600), ("1-00:30", 1470), ("0:01", 1)],
)
def test_time_limits_are_read_as_slurm_reads_them(text: str, minutes: int) -> None:
    assert plan(f"slurm: {{time: {text}}}").runs[0].resources.time == minutes


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


# What is wrong is said, with its line ------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gird: {mp_silu: [true]}", r"grid\.yaml:6: gird: unknown key\. Did you mean 'grid'"),
        (
            "variants:\n  A: {}\n  B: {cosine_atention: true}",
            r":8: variants\.B\.cosine_atention: unknown key\. Did you mean 'cosine_attention'",
        ),
        ("grid:\n  model.detph: [1]", r":7: grid\.model\.detph: .*Did you mean 'model\.depth'"),
        (
            "grid:\n  model:\n    depth:\n      - 2\n      - two",
            r":10: grid\.model\.depth: .*'two'",
        ),
        ("grid: {mp_silu: true}", "should be a list of values, not True"),
        ("grid: {mp_silu: []}", "should be a list of values"),
        ("variants: {A: {mp_silu: on}}", r":6: .*valid boolean, not 'on' \(write true or false\)"),
        ("variants: {A: {from: B}}", "there is no variant 'B'"),
        ("variants: {A: {from: B}, B: {from: A}}", "circular 'from': A → B → A"),
        ("ladder: {A: {}, B: {from: A}}", "a ladder step starts from the one before it"),
        ("ladder: {A: {}}\nvariants: {A: {}}", r":7: .*the name 'A' is taken \(line 6\)"),
        ("leave_one_out: [model.depth]", "'model.depth' is no flag; give it a value"),
        ("leave_one_out: [mp_silu, model.mp_silu]", "'model.mp_silu' is listed twice"),
        ("zip: {model.depth: [1, 2], model.width: [64]}", "equally long: .* has 2, .* has 1"),
        ("slurm:\n  extra: {mem: 3}", r":7: slurm\.extra: set mem by slurm\.memory"),
        ("slurm: {extra: {signal: x}}", "signal cannot be set"),
        ("slurm: {extra: {requeue: false}}", "requeue cannot be set"),
        ("slurm: {extra: {gres: gpu:a100:2}}", "set GPUs by slurm.gpus and slurm.gpu_type"),
        ("slurm: {extra: {gpus_per_task: 1}}", "set gpus-per-task by slurm.gpus"),
        ("slurm: {extra: {ntasks-per-gpu: 1}}", "ntasks-per-gpu cannot be set"),
        ("slurm: {gpu_type: a100}", "gpu_type needs gpus: how many"),
        ("slurm: {runs_per_job: 2, nodes: 2}", "2 runs share one node, not 2"),
        ("slurm: {runs_per_job: 2, gpus: 4}", "2 runs leave 4 GPUs partly idle"),
        ("seeds: 0", "should be a number of seeds, or a list"),
        ("seeds: [1, 1]", "seed 1 is listed twice"),
        ("seeds: true", "should be a number of seeds"),
        ("grid: {seed: [1, 2]}", "seeds are the study's own"),
        ("tune: {mp_silu: [true]}\ngrid: {mp_silu: [true]}", "multiplied already|multiplied"),
        ("ladder: {A: {mp_silu: true}}\ngrid: {mp_silu: [true]}", "only one can be meant"),
        ("exclude:\n  - {variant: X}", r":7: exclude\.variant: there is no variant 'X'"),
        ("exclude: {mp_silu: true}", "should be a list of conditions"),
        ("exclude: [{model.depth: 4}]", "every combination is excluded"),
        ("variants: {A: {train: {steps: 1}, train.steps: 2}}", "set twice"),
        ("variants: {A: {model: DiT-S/2}}", "mapping of options.*model.name"),
        ("variants: {A: {model.name: DiT-M/2}}", r":6: variants\.A\.model\.name: unknown model"),
        ("slurm: {gpu: 1}", r"slurm\.gpu: unknown resource\. Did you mean 'gpus'"),
        ("slurm: {time: soon}", "a time limit is minutes"),
        ("slurm: {memory: 16}", "should be text like '16G'"),
        ('slurm: {partition: "a\\nb"}', "slurm.partition: should"),
        ("grid: {train.batch_size: [1, 2]}\nseeds: 60_000", "120,000 combinations"),
        ("variants: {A: {train.adam_betas: [0.9, 1]}}", r":6: .*adam_betas.*less than 1, not 1"),
        ("variants: {A: {train.adam_betas: [-0.1, 0]}}", r"adam_betas.*greater than or equal to 0"),
        ("variants: {A: {train.adam_betas: [0.9]}}", r"adam_betas: .*two numbers, .* not \[0\.9\]"),
        ("variants: {A: {train.adam_betas: 0.9}}", r"adam_betas: .*two numbers, .* not 0\.9"),
        ("study: other", r":6: the key 'study' is listed twice \(first in line 1\)"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, message: str) -> None:
    assert re.search(message, refusal(text))


def test_an_impossible_combination_suggests_its_exclusion_and_that_works() -> None:
    text = "grid:\n  weight_normalization: [true, false]\n  forced_weight_normalization: [true]\n"
    message = refusal(text)
    assert "forced_weight_normalization needs weight_normalization" in message
    advice = message.partition("leave such combinations out: ")[2]
    assert advice.startswith("exclude: [{")
    assert variants(plan(text + advice)) == ["wn-fwn"]


@pytest.mark.parametrize("name", ["paper", "published", "Paper"])
def test_a_study_is_not_named_as_a_folder_that_analysis_writes(name: str) -> None:
    said = refusal("", base=BASE.replace("study: s", f"study: {name}"))
    assert said.startswith(f"grid.yaml:1: study: {name!r} cannot name a study")


@pytest.mark.parametrize("name", ["../x", "/abs", '""', ".hidden", "a" * 81, "a b", "~"])
def test_a_name_that_would_leave_its_folder_is_refused(name: str) -> None:
    assert "cannot name a study" in refusal(f"study: {name}", base="")
    if name != "~":
        assert "cannot name a variant" in refusal(f"variants: {{{name}: {{}}}}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("- a", "a grid is a mapping"),
        ("base: {}", "study: is not set"),
        ("study: s\nbase: *x", ":2: not valid YAML: found undefined alias"),
        ("study: s\nbase: &x {data: *x}", ":2: aliases nest deeper than 20; one may hold itself"),
        ("study: s\nbase: &x [*x]", ":2: aliases nest deeper than 20"),
        ("study: s\nbase: &x {<<: *x}", ":2: aliases nest deeper than 20"),
        ("study: s\nbase: {<<: 3}", ":2: << merges a mapping, or a list of mappings"),
        ("study: s\nbase: {<<: [{}, 3]}", ":2: << merges a mapping"),
        ("study: s\nbase: {<<: {}, <<: {}}", "the key '<<' is listed twice"),
        ("study: s\nbase: {!!str data: digits}", ":2: tags"),
        ("study: !!python/object/apply:os.system [ls]", ":1: tags"),
        ("study: s\n--- \nstudy: t", ":2: not valid YAML: expected a single document"),
        ("study: [" * 30, "nested deeper than 20"),
        ("study: {a: [", "not valid YAML"),
        ("study: \x07", "not valid YAML"),
        ("study: s # " + "x" * 1_000_000, "larger than 1,000,000 bytes"),
        ("[" * 999_999, "nested deeper"),
        *(
            (opening * 200_000, ":1: nested deeper than 20")
            for opening in ("[", "{a: ", "- ", "? ")
        ),
        ("study: s\nbase: {model: {depth: 4, width: 64, heads: 4}, data: digits}", "patch_size"),
    ],
)
def test_hostile_or_broken_yaml_is_refused_at_once(text: str, message: str) -> None:
    began = time.monotonic()
    assert message in refusal(text, base="")
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    "fifty",
    [
        lambda alias: f"[{', '.join([alias] * 50)}]",
        lambda alias: f"{{{', '.join(f'k{i}: {alias}' for i in range(50))}}}",
        lambda alias: f"{{<<: [{', '.join([alias] * 50)}]}}",
    ],
    ids=["lists", "mappings", "merges"],
)
def test_aliases_that_stand_for_billions_of_values_are_refused_at_once(
    fifty: Callable[[str], str],
) -> None:
    text = "v0: &v0 {x: 1}\n" + "".join(
        f"v{i + 1}: &v{i + 1} {fifty(f'*v{i}')}\n" for i in range(9)
    )
    tracemalloc.start()
    with pytest.raises(ConfigError, match="aliases stand for more than 100,000 values"):
        parse(text)
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_a_chain_of_three_thousand_variants_is_no_trouble() -> None:
    links = "".join(f"  v{i}: {{from: v{i + 1}}}\n" for i in range(3_000))
    made = plan(f"variants:\n{links}  v3000: {{mp_silu: true}}\n")
    assert len(made.runs) == 1
    assert made.runs[0].config.model.mp_silu


def test_a_file_that_is_not_there_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(BASE)
    with pytest.raises(ConfigError, match=r"there is no file .*Did you mean .*quickstart\.yaml"):
        load_plan(tmp_path / "quikstart.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"study: \xff")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load_plan(tmp_path / "latin.yaml")


@pytest.mark.parametrize("text", ["train.steps", "=3", "x=1", "train.steps=[", "seeds=x", "a=&b 1"])
def test_a_wrong_set_is_named(text: str) -> None:
    assert f"--set {text}" in refusal("", text)


# Whatever is written -----------------------------------------------------------------------------

AXES: dict[str, list[Any]] = {
    **{flag: [False, True] for flag in PAPERS_FLAGS if flag != "forced_weight_normalization"},
    "model.depth": [1, 2, 3],
    "model.conditioning": ["adaln", "rotation", "rotation_scale", "rotation+scale", "scale+gate"],
    "train.learning_rate": [1e-4, 3e-4, 1e-3],
    "train.steps": [10, 20],
    "sample.guidance": [1, 1.5],
}


@st.composite
def products(draw: st.DrawFn) -> dict[str, Any]:
    """A grid of some axes, each in ``grid``, ``zip`` or ``tune``, some seeds, one exclusion."""
    keys = draw(st.lists(st.sampled_from(list(AXES)), unique=True, max_size=4))
    tree: dict[str, Any] = {"grid": {}, "tune": {}, "zip": []}
    for key in keys:
        values = AXES[key][: draw(st.integers(1, len(AXES[key])))]
        section = draw(st.sampled_from(["grid", "zip", "tune"]))
        if section == "zip":
            tree["zip"].append({key: values})
        else:
            tree[section][key] = values
    tree["seeds"] = draw(st.integers(1, 3))
    if keys:
        excluded = draw(st.lists(st.sampled_from(keys), unique=True, max_size=2))
        condition = {key: draw(st.sampled_from(AXES[key])) for key in excluded}
        tree["exclude"] = [condition] if condition else []
    return tree


@settings(deadline=None)
@given(products())
def test_there_are_as_many_runs_as_the_product_less_what_is_excluded(tree: dict[str, Any]) -> None:
    axes: dict[str, list[Any]] = tree["grid"] | tree["tune"]
    for zipped in tree["zip"]:
        axes |= zipped
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    left = [
        point
        for point in points
        if not any(
            all(point[key] == value for key, value in condition.items())
            for condition in tree.get("exclude", [])
        )
    ]
    text = yaml.safe_dump(tree)
    if not left:
        assert "every combination is excluded" in refusal(text)
        return
    made = plan(text)
    assert len(made.runs) == len(left) * tree["seeds"]
    assert made.grid.points == math.prod(map(len, axes.values())) * tree["seeds"]
    assert sum(excluded.runs for excluded in made.excluded) == made.grid.points - len(made.runs)
    assert len({run.name for run in made.runs}) == len(made.runs)
    tuned = {(run.variant, str(run.tune), run.seed) for run in made.runs}
    assert len(tuned) == len(made.runs)


WORDS = st.sampled_from(
    [
        *("study", "base", "grid", "ladder", "variants", "leave_one_out", "zip", "exclude", "tune"),
        *("seeds", "slurm", "from", "variant", "reason", "model", "data", "train", "sample"),
        *(
            "model.name",
            "DiT-S/2",
            "digits",
            "mp_silu",
            "train.steps",
            "time",
            "extra",
            "A",
            "",
            "~",
        ),
        *("1e-3", "400_000", "1:30", "on", "true", "null", "-1", ".inf", "9" * 40, "!!set", "&a"),
        *("*a", "<<", "? x", "| y", "\t", "'", '"', "{", "}", "[", "]", ":", "-", "#", "\x00"),
    ]
)
TREES = st.recursive(
    WORDS | st.integers() | st.floats() | st.booleans() | st.none() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


def survives(text: str) -> None:
    try:
        made = make_plan(grid_from_text(text))
    except ConfigError as error:
        assert str(error)  # noqa: PT017 - a plan is as good
    else:
        assert made.runs


@settings(deadline=None, max_examples=300)
@given(st.text())
def test_no_text_causes_anything_but_a_plan_or_one_clear_error(text: str) -> None:
    survives(text)


@settings(deadline=None, max_examples=300)
@given(st.lists(WORDS | st.sampled_from([" ", "\n", ": ", "\n  ", ", "]), max_size=40).map("".join))
def test_no_sequence_of_the_languages_words_does_either(text: str) -> None:
    survives(text)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([BASE, "study: s\n"]), st.dictionaries(WORDS, TREES, max_size=4))
def test_no_tree_under_a_right_beginning_does_either(text: str, tree: dict[str, Any]) -> None:
    taken = grid_keys(text)
    tree = {key: value for key, value in tree.items() if key not in taken}
    survives(text + (yaml.safe_dump(tree, allow_unicode=True) if tree else ""))


def grid_keys(text: str) -> set[str]:
    return set(parse(text).tree)


def test_two_runs_with_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunConfig, "id", property(lambda _: "00000000"))
    assert "different runs with the same id" in refusal("seeds: 2")
