"""Counts and FLOPs from the config are the paper's, and the built model's."""

import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from analysis.judging.literature import ALL, PARAMETERS
from mpdit.catalogue import DATASETS
from mpdit.catalogue.switches import switches
from mpdit.flops import count_parameters, forward_flops
from mpdit.model import DiT, counts
from mpdit.modelconfig import ModelConfig

SHAPES = {name: row.shape for name, row in DATASETS.items() if row.shape is not None}
LATENTS = SHAPES["imagenet128-latents"]


def config(**options: object) -> ModelConfig:
    return ModelConfig.model_validate(options)


@pytest.mark.parametrize(("published", "options"), PARAMETERS)
def test_counts_are_the_published_ones(published, options):
    model = config(**options)
    assert sum(count_parameters(model, LATENTS).values()) == published
    assert sum(count_parameters(model, LATENTS).values()) == published


def test_counting_imports_no_torch():
    check = "import sys, mpdit.flops; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


MODS = {"preset": "mods"}
SIZES = {"depth": 2, "width": 16, "heads": 2, "patch_size": 4}
MODELS = [
    {},
    ALL,
    *({"preset": "mods", "conditioning": mode} for mode in ("adaln", "rotation", "none")),
    {"preset": "mods", "conditioning": "rotation_scale", "final_conditioning": "adaln"},
    {"preset": "mods", "modulation": "joint"},
    *({"preset": "final", "modulation": way} for way in ("plain", "joint", "separate")),
    {
        "preset": "final",
        "conditioning": "scale+gate",
        "weight_normalization": False,
        "forced_weight_normalization": False,
    },
    {"conditioning": "blended_shift+gate", "gate": "rotation", "zero_output": False},
    {"weight_normalization": True, "conditioning": "scale+rotation", "modulation": "separate"},
    {"conditioning": "shift", "modulation": "separate", "time_embedding": "table"},
    {"norm": "dyt", "qk_norm": "rms"},
    {"shared_modulation": True},
    {"shared_modulation": True, "depth": 1},
    {"learned_uncertainty": True},
    {"mlp": "swiglu"},
    {**MODS, "positions": "rope", "conditioning": "rotation"},
    {**ALL, "mlp": "swiglu", "width": 64},
    *({**ALL, "shared_modulation": True, "conditioning": c} for c in ("adaln", "rotation")),
    {**MODS, "shared_modulation": True, "conditioning": "scale+gate", "final_conditioning": "none"},
    {**MODS, "norm": "rms", "qk_norm": "none", "conditioning": "rotation"},
    {"patch_size": 2, "width": 32, "depth": 1, "final_conditioning": "none", **ALL},
]


@pytest.mark.parametrize("options", MODELS, ids=str)
@pytest.mark.parametrize("data", SHAPES)
def test_the_built_model_has_the_counted_parameters(data, options):
    model, spec = config(**{**SIZES, **options}), SHAPES[data]
    prefixes = {
        "embedders": ("patches", "time", "label"),
        "attention": ("attention",),
        "mlp": ("mlp",),
        "modulation": ("modulation",),
        "final": ("final",),
        **({"norms": ("norms",)} if model.norm == "dyt" else {}),
        **({"other": ("uncertainty",)} if model.added_flags == ("learned_uncertainty",) else {}),
    }
    built = dict.fromkeys(prefixes, 0)
    for name, parameter in DiT(model, spec).named_parameters():
        first, *rest = name.split(".")
        place = rest[1] if first == "blocks" else first
        built[next(part for part, names in prefixes.items() if place in names)] += parameter.numel()
    assert count_parameters(model, spec) == built
    assert counts.count_parameters(model, spec) == built


@pytest.mark.parametrize("switch", list(switches()), ids=lambda switch: switch.name)
def test_every_switch_costs_what_the_built_model_has_and_does(switch):
    for options in (switch.on, switch.off):
        model = config(**{**SIZES, **options.get("model", {})})
        assert count_parameters(model, LATENTS) == counts.count_parameters(model, LATENTS)
        assert forward_flops(model, LATENTS) == counts.forward_flops(model, LATENTS)


@pytest.mark.parametrize("size", ["XS", "S", "B", "L", "XL"])
def test_swiglu_has_as_many_parameters(size):
    with_silu, with_swiglu = (
        count_parameters(config(name=f"DiT-{size}/2", mlp=mlp), LATENTS)["mlp"]
        for mlp in ("silu", "swiglu")
    )
    assert with_swiglu == pytest.approx(with_silu, rel=0 if size in ("S", "B", "XL") else 0.005)


@pytest.mark.parametrize("options", MODELS, ids=str)
def test_flops_are_the_flop_counters(options):
    model, spec = config(**{**SIZES, **options}), LATENTS
    built = DiT(model, spec)
    image = torch.zeros(1, spec.channels, spec.size, spec.size)
    zero = torch.zeros(1, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        built(image, zero, zero)
    assert forward_flops(model, spec) == counter.get_total_flops()
