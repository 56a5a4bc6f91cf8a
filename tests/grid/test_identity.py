"""A run's id is its science: one config, one id, however it was written; another, another."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import OPERATIONAL, RunConfig, make_run, read_run
from mpdit.errors import ConfigError
from mpdit.grid.plan import make_plan
from mpdit.modelconfig import PRESETS
from mpdit.sampling.drawing import Drawing
from tests.helpers.plans import grid_from_text

OTHER: dict[str, list[Any]] = {
    "model.depth": [3, 8],
    "model.width": [128, 192],
    "model.heads": [2, 8],
    "model.patch_size": [1, 4],
    **{f"model.{flag}": [True] for flag in PAPERS_FLAGS if flag != "forced_weight_normalization"},
    "model.conditioning": ["rotation", "rotation_scale", "blended_shift+gate", "none"],
    "model.final_conditioning": ["scale", "none"],
    "model.modulation": ["separate", "plain"],
    "model.gate": ["one_plus", "rotation"],
    "model.time_embedding": ["table", "fourier", "mp_fourier"],
    "model.mean_free_positions": [True],
    "model.mp_attention": [True],
    "model.mp_attention_output": [True],
    "model.mean_free_table": [True],
    "model.zero_output": [False],
    "model.residual_t": [0.5],
    "model.norm": ["rms", "dyt"],
    "model.qk_norm": ["rms"],
    "model.mlp": ["swiglu"],
    "model.positions": ["rope"],
    "model.added_flags": [["shared_modulation"]],
    "train.steps": [10, 2000],
    "train.batch_size": [1, 128],
    "train.learning_rate": [1e-4, 2e-3],
    "train.mp_learning_rate": [1e-2],
    "train.matrix_learning_rate": [1e-2],
    "train.embedding_learning_rate": [1e-2],
    "train.optimizer": ["muon"],
    "train.weight_decay": [0.1],
    "train.adam_betas": [[0.9, 0.999], [0.5, 0.99]],
    "train.warmup_steps": [0, 7],
    "train.constant_steps": [1, 999],
    "train.decay_offset": [0],
    "train.clip_norm": [0.1, 1.0],
    "train.label_dropout": [0.0, 0.2],
    "train.precision": ["bfloat16", "tf32"],
    "train.objective": ["v", "x"],
    "train.ema_stds": [[0.05], [0.05, 0.1, 0.2]],
    "train.snapshot_every": [1, 17],
    "sample.count": [1, 500],
    "sample.steps": [1, 50],
    "sample.guidance": [0.0, 1.0, 3.0],
    "sample.guidance_interval": [[0.3, 5.0]],
    "sample.solver": ["ddim", "dpm++"],
    "sample.ema_std": [0.1],
    "sample.precision": ["bfloat16", "tf32"],
    "sample.labels": ["even", "uniform"],
    "sample.to_uint8": ["truncate"],
    "evaluate.extractor": ["inception", "dinov2"],
    "evaluate.metrics": [["fd", "kid"], ["inception_score"]],
    "evaluate.repeats": [2],
    "seed": [1, 2**31 - 1],
    "data.name": ["fashion-mnist"],
}
LATENTS = {"channels": 4, "size": 16, "classes": 1000}
"""Given all three, or none."""
ELSEWHERE: dict[str, list[Any]] = {
    "data.path": ["/data/digits"],
    "train.checkpoint_every": [1, 77],
    "train.checkpoint_minutes": [0.5, 60.0],
    "train.gradient_checkpointing": [True],
    "train.log_every": [1, 77],
    "train.probe_every": [1, 77],
    "train.compile": [True],
    "train.micro_batch_size": [1, 16],
    "train.track": ["tensorboard", "wandb", "mlflow"],
    "sample.batch_size": [1, 77],
    "sample.compile": [True],
    "evaluate.inception": ["/data/inception.pth"],
    "evaluate.dinov2": ["/data/dinov2.pth"],
}


def base() -> dict[str, dict[str, Any]]:
    return {
        "model": {"depth": 4, "width": 64, "heads": 4, "patch_size": 2},
        "data": {"name": "digits"},
        "train": {"steps": 1000, "learning_rate": 1e-3},
        "sample": {},
        "evaluate": {"extractor": "digits"},
    }


def changed(key: str, value: Any) -> RunConfig:
    tree: dict[str, Any] = base()
    section, _, name = key.partition(".")
    if name:
        tree[section][name] = value
    else:
        tree[section] = value
    return make_run(tree)


def choices(table: dict[str, list[Any]]) -> st.SearchStrategy[tuple[str, Any]]:
    return st.sampled_from([(key, value) for key, values in table.items() for value in values])


def test_every_field_is_either_science_or_operation() -> None:
    fields = {
        f"{section}.{name}"
        for section, values in make_run(base()).resolved().items()
        if isinstance(values, dict)
        for name in values
    } | {"seed"}
    operational = {f"{section}.{name}" for section, names in OPERATIONAL.items() for name in names}
    assert operational == set(ELSEWHERE)
    together = {"model.forced_weight_normalization", *(f"data.{key}" for key in LATENTS)}
    together |= {"train.start"}  # of a file: tests/training/test_start.py
    together |= {"train.gain_learning_rate"}  # where there are gains
    together |= {"sample.respacing"}  # for some step counts only
    assert fields - operational == set(OTHER) | together


@given(choices(OTHER))
def test_any_changed_science_field_is_another_run(change: tuple[str, Any]) -> None:
    assert changed(*change).id != make_run(base()).id


def test_forcing_the_weights_is_another_run() -> None:
    normalized = base()
    normalized["model"]["weight_normalization"] = True
    forced = base()
    forced["model"] |= {"weight_normalization": True, "forced_weight_normalization": True}
    assert make_run(normalized).id != make_run(forced).id


def test_another_rate_of_the_gains_is_another_run_where_there_are_gains() -> None:
    plain, normalized, final = base(), base(), base()
    normalized["model"]["weight_normalization"] = True
    final["model"]["preset"] = "final"
    ids = []
    for tree in (plain, normalized, final):
        other = {**tree, "train": {**tree["train"], "gain_learning_rate": 5e-3}}
        ids.append((make_run(tree).id, make_run(other).id))
    assert ids[0][0] == ids[0][1]
    assert ids[1][0] != ids[1][1]
    assert ids[2][0] == ids[2][1]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_same_model_in_an_older_study(preset: str) -> None:
    tree = base()
    tree["model"] |= {"preset": preset, "conditioning": "rotation+gate"}
    assert make_run(tree, defaults=1).model == make_run(tree).model
    assert read_run(make_run(tree).resolved()).id == make_run(tree).id


def test_latents_of_another_shape_are_another_run() -> None:
    shapes = [LATENTS] + [{**LATENTS, key: 2 * value} for key, value in LATENTS.items()]
    trees = [base() | {"data": {"name": "latents", **shape}} for shape in shapes]
    assert len({make_run(tree).id for tree in trees}) == 4


@pytest.mark.parametrize("objective", ["flow", "edm"])
def test_continuous_time_needs_its_solver_and_no_table_of_timesteps(objective: str) -> None:
    tree = base()
    tree["train"]["objective"] = objective
    with pytest.raises(ConfigError, match=r"sample\.solver ddpm .* Set sample\.solver to heun"):
        make_run(tree)
    tree["sample"]["solver"] = "heun"
    assert make_run(tree).id != make_run(base()).id
    assert make_run(tree).sample.passes == 2 * make_run(tree).sample.steps - 1
    tree["model"]["mp_embedding"] = True
    with pytest.raises(ConfigError, match=r"model\.time_embedding table .* mp_fourier"):
        make_run(tree)
    tree["model"]["time_embedding"] = "mp_fourier"
    assert make_run(tree).train.objective == objective


def test_a_guidance_interval_is_part_of_guided_runs_only() -> None:
    plain, given = (sampled(guidance=1.0, guidance_interval=v) for v in (None, [0.3, 5.0]))
    assert plain.id == given.id
    assert Drawing.of_run(given).record() == Drawing.of_run(plain).record()
    with pytest.raises(ConfigError, match="should rise"):
        sampled(guidance_interval=[5.0, 0.3])


@given(choices(ELSEWHERE))
def test_where_and_how_a_run_is_executed_is_no_part_of_it(change: tuple[str, Any]) -> None:
    assert changed(*change).id == make_run(base()).id


def sampled(**sample: Any) -> RunConfig:
    return make_run(base() | {"sample": sample})


@pytest.mark.parametrize(
    ("solver", "steps"), [("ddpm", 250), ("ddim", 50), ("ddpm", 1), ("dpm++", 15), ("dpm++", 27)]
)
def test_respacing_is_no_part_of_a_run_whose_timesteps_it_leaves_as_they_are(
    solver: str, steps: int
) -> None:
    one, other = (sampled(solver=solver, steps=steps, respacing=r) for r in ("dit", "nearest"))
    assert one.id == other.id
    assert "respacing" not in one.science()["sample"]
    assert Drawing.of_run(one).record() == Drawing.of_run(other).record()


@pytest.mark.parametrize("solver", ["ddpm", "ddim"])
def test_a_run_of_version_01_keeps_its_timesteps_and_its_id(solver: str) -> None:
    new = sampled(solver=solver, steps=27)
    assert new.sample.respacing == "dit"
    written = new.resolved()
    del written["sample"]["respacing"]
    old = read_run(written)
    assert old.sample.respacing == "nearest"
    assert "respacing" not in old.science()["sample"]
    assert old.id != new.id
    assert "respacing" not in Drawing.of_run(old).record()  # as its records say
    assert Drawing.of_run(new).record()["respacing"] == "dit"
    assert Drawing.of_run(new).name == "samples"


def test_metrics_in_another_order_or_twice_are_the_same_run() -> None:
    ids = {
        changed("evaluate.metrics", metrics).id
        for metrics in (["fd", "kid"], ["kid", "fd"], ["fd", "kid", "fd"])
    }
    assert len(ids) == 1


@given(choices(OTHER))
def test_a_resolved_config_read_back_is_the_same_run(change: tuple[str, Any]) -> None:
    config = changed(*change)
    assert make_run(config.resolved()).id == config.id


SETTINGS = {
    "data": "digits",
    "model.depth": 4,
    "model.width": 64,
    "model.heads": 4,
    "model.patch_size": 2,
    "cosine_attention": "true",
    "mp_silu": "false",
    "train.steps": "1_000",
    "train.learning_rate": "1e-3",
}


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """One set of settings, as somebody might write it."""
    top: list[str] = []
    nested: dict[str, list[str]] = {"model": [], "train": [], "data": []}
    for key in draw(st.permutations(list(SETTINGS))):
        value = SETTINGS[key]
        full = {"data": "data.name"}.get(key, key if "." in key else f"model.{key}")
        section, _, name = full.partition(".")
        match draw(st.sampled_from(["as it is", "dotted", "nested"])):
            case "nested":
                nested[section].append(f"{name}: {value}")
            case "dotted":
                top.append(f"{full}: {value}")
            case _:
                top.append(f"{key}: {value}")
    top += [f"{section}: {{{', '.join(items)}}}" for section, items in nested.items() if items]
    body = draw(st.permutations(top))
    return "study: s\nbase:\n" + "".join(f"  {line}\n" for line in body)


@given(spellings())
def test_one_config_is_one_run_however_it_is_spelled(text: str) -> None:
    tree = base()
    tree["model"]["cosine_attention"] = True
    assert make_plan(grid_from_text(text)).runs[0].id == make_run(tree).id


@pytest.mark.parametrize("preset", ["flags", "mods"])
@pytest.mark.parametrize(
    ("flag", "option", "on", "off"),
    [
        ("no_layernorm", "norm", "none", "layer"),
        ("cosine_attention", "qk_norm", "cosine", "none"),
    ],
)
def test_a_flag_and_the_option_that_it_is_a_value_of_are_one_run(
    preset: str, flag: str, option: str, on: str, off: str
) -> None:
    def run(**model: Any) -> RunConfig:
        return make_run(base() | {"model": base()["model"] | {"preset": preset, **model}})

    for value, name in ((True, on), (False, off)):
        spellings = {flag: value}, {option: name}, {flag: value, option: name}
        runs = [run(**spelling) for spelling in spellings]
        assert len({one.id for one in runs}) == 1
        assert (getattr(runs[1].model, flag), getattr(runs[0].model, option)) == (value, name)
        assert option not in runs[0].science()["model"]  # as before there was one
    for value, name in ((True, "rms"), (True, off), (False, on)):
        with pytest.raises(ConfigError, match=rf"{flag}: \w+ contradicts {option}: {name}"):
            run(**{flag: value, option: name})


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"norm": "rms"}, "no_layernorm"),
        ({"qk_norm": "rms"}, "cosine_attention"),
        ({"positions": "rope"}, "mp_pos_enc"),
    ],
)
@pytest.mark.parametrize("defaults", [0, 1, 2])
def test_a_preset_gives_way_to_an_option_whatever_the_defaults(
    options: dict[str, Any], flag: str, defaults: int
) -> None:
    model = base()["model"] | {"preset": "mods", **options}
    made = make_run(base() | {"model": model}, defaults).model
    assert not getattr(made, flag)
    assert made == make_run(base() | {"model": {**model, flag: False}}).model


def test_a_named_size_and_its_numbers_are_one_run() -> None:
    named = base() | {"model": {"name": "DiT-S/2"}}
    spelled = base() | {"model": {"depth": 12, "width": 384, "heads": 6, "patch_size": 2}}
    assert make_run(named).id == make_run(spelled).id


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("model", {"added_flags": 5}),
        ("model", {"added_flags": [[1]]}),
        ("model", {"added_flags": "abc"}),
        ("model", {"preset": ["mods"]}),
        ("extensions", 5),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_message(section: str, value: Any) -> None:
    tree = base()
    tree[section] = {**tree["model"], **value} if section == "model" else value
    with pytest.raises(ConfigError):
        make_run(tree)
