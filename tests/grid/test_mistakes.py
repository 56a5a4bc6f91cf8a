"""What is wrong in a grid is one message with its line, at once, however hostile the text."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from mpdit.config import RunConfig
from mpdit.disk.yamlfile import parse
from mpdit.errors import ConfigError
from tests.helpers.plans import BASE, load_plan, plan, refusal, variants


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gird: {mp_silu: [true]}", r"grid\.yaml:6: gird: unknown key\. Did you mean 'grid'"),
        (
            "variants:\n  A: {}\n  B: {cosine_atention: true}",
            r":8: variants\.B\.cosine_atention: unknown key\. Did you mean 'cosine_attention'",
        ),
        ("variants: {c: {norm: rms}}", r":6: variants\.c\.norm: .*Did you mean 'model\.norm'"),
        ("variants: {c: {nrom: rms}}", r"c\.nrom: unknown key\. Did you mean 'model\.norm'"),
        ("variants: {c: {swiglu: true}}", r"c\.swiglu: .* Did you mean 'model\.mlp: swiglu'"),
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
        ("leave_one_out: [model.depth]", "'model.depth' is not a flag; give it a value"),
        ("leave_one_out: [mp_silu, model.mp_silu]", "'model.mp_silu' is listed twice"),
        ("zip: {model.depth: [1, 2], model.width: [64]}", "equally long: .* has 2, .* has 1"),
        ("slurm:\n  extra: {mem: 3}", r":7: slurm\.extra\.mem: set it by slurm\.memory"),
        ("slurm: {extra: {gres: gpu:a100:2}}", "set GPUs by slurm.gpus and slurm.gpu_type"),
        ("slurm: {extra: {gpus_per_task: 1}}", "gpus_per_task: set it by slurm.gpus"),
        ("slurm: {gpu_type: a100}", "gpu_type needs gpus, their number"),
        ("slurm: {runs_per_job: 2, nodes: 2}", "2 runs share one node, not 2"),
        ("slurm: {runs_per_job: 2, gpus: 4}", "2 runs leave 4 GPUs partly idle"),
        ("seeds: 0", "should be a number of seeds, or a list"),
        ("seeds: [1, 1]", "seed 1 is listed twice"),
        ("seeds: true", "should be a number of seeds"),
        ("grid: {seed: [1, 2]}", "seeds are the study's own"),
        ("tune: {mp_silu: [true]}\ngrid: {mp_silu: [true]}", "is already an axis in line"),
        ("ladder: {A: {mp_silu: true}}\ngrid: {mp_silu: [true]}", "is an axis in line 7: keep one"),
        ("exclude:\n  - {variant: X}", r":7: exclude\.variant: there is no variant 'X'"),
        ("exclude: {mp_silu: true}", "should be a list of conditions"),
        ('exclude: [{model.conditioning: "!=adaln"}]', "model.conditioning is not a number"),
        ('exclude: [{mp_silu: ">0"}]', "is not a number"),
        ('exclude: [{variant: ">=A"}]', "is not a number"),
        ('exclude: [{model.depth: ">=deep"}]', "should compare with a number"),
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
        (
            "variants: {A: {sample.guidance_interval: [1]}}",
            r"guidance_interval: .*two noise levels",
        ),
        ("variants: {A: {model.preset: Mods}}", r"unknown preset 'Mods'\. Did you mean 'mods'"),
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
    ("text", "line"),
    [("study: s\nbase:\n  data: digits\n model: {}", 4), ("study: s\n  base: {}", 2)],
)
def test_a_wrong_indentation_is_called_one(text: str, line: int) -> None:
    said = refusal(text, base="")
    assert said.startswith(f"grid.yaml:{line}: not valid YAML: ")
    assert "indentation" in said


def test_text_with_a_colon_is_told_to_need_quotes() -> None:
    said = refusal("study: s\ndescription: Rotation: which part?", base="")
    assert said.startswith("grid.yaml:2: not valid YAML: ")
    assert "colon needs quotes" in said


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


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ("metrics: []", "metrics"),
        ("metrics: fd", "metrics"),
        ("repeats: 0", "repeats"),
        ("extractor: 3", "extractor"),
    ],
)
def test_a_wrong_value_is_said_without_the_checkers_own_words(options: str, key: str) -> None:
    said = refusal(f"variants: {{a: {{}}, b: {{evaluate: {{{options}}}}}}}")
    assert f"evaluate.{key}: should " in said
    assert not re.search("[Tt]uple|validation|Input", said)


def test_a_colon_without_a_space_in_braces_is_explained() -> None:
    said = refusal("variants: {a: {}, b: {mp_silu:[true]}}")
    assert re.search(r"grid.yaml:\d+: not valid YAML: .*a space after each colon", said)


def test_two_runs_with_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunConfig, "id", property(lambda _: "00000000"))
    assert "different runs with the same id" in refusal("seeds: 2")


@pytest.mark.parametrize("condition", [">=3", ">3", "!=3", "[>= 3]"])
def test_a_comparison_without_quotes_is_explained(condition: str) -> None:
    said = refusal(f"grid: {{model.depth: [2, 3]}}\nexclude: [{{model.depth: {condition}}}]")
    assert re.search(r"grid.yaml:7: not valid YAML: .*in quotes, such as '>=1e-3'", said)


def test_two_different_runs_with_one_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunConfig, "id", "0" * 12)
    assert "different runs with the same id" in refusal("seeds: 2")
