"""Counts and FLOPs from the config are the paper's, and the built model's."""

import subprocess
import sys

import pytest

from mpdit.config import DATASETS, FLAGS, ModelConfig
from mpdit.parameters import count_parameters, total_parameters

LATENTS = DATASETS["imagenet128-latents"]


def config(**options: object) -> ModelConfig:
    return ModelConfig.model_validate(options)


ALL = dict.fromkeys(FLAGS, True)
MODS = {"preset": "mods"}
PUBLISHED = [
    (7_608_871, {"name": "DiT-XS/2", **MODS}),
    (32_849_739, {"name": "DiT-S/4", **MODS}),
    (32_794_443, {"name": "DiT-S/2", **MODS}),
    (130_174_539, {"name": "DiT-B/2", **MODS}),
    (30_951_243, {"name": "DiT-S/2", "conditioning": "rotation_scale", **MODS}),
    (
        31_024_971,
        {
            "name": "DiT-S/2",
            "conditioning": "rotation_scale",
            "final_conditioning": "adaln",
            **MODS,
        },
    ),
    (
        31_080_267,
        {
            "name": "DiT-S/4",
            "conditioning": "rotation_scale",
            "final_conditioning": "adaln",
            **MODS,
        },
    ),
    (27_264_818, {"name": "DiT-S/2", "conditioning": "rotation", **MODS}),
    (32_843_520, {"name": "DiT-S/2"}),
    (32_898_816, {"name": "DiT-S/4"}),
    (7_608_832, {"name": "DiT-XS/2"}),
    (33_227_534, {"name": "DiT-S/2", **ALL}),
    (33_282_830, {"name": "DiT-S/4", **ALL}),
    (7_864_840, {"name": "DiT-XS/2", **ALL}),
]


@pytest.mark.parametrize(("published", "options"), PUBLISHED)
def test_counts_are_the_published_ones(published, options):
    model = config(**options)
    assert total_parameters(model, LATENTS) == published
    assert sum(count_parameters(model, LATENTS).values()) == published


def test_counting_imports_no_torch():
    check = "import sys, mpdit.parameters; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
