"""Published numbers for comparison, each with its source.

PAPER is Bill, Perez Jensen, Anagnostidis, von Rütte, *Exploring Magnitude Preservation and Rotation
Modulation in Diffusion Transformers*, 2025. Its full tables were not available; the numbers are
from secondary sources. CODE is its official code, ericbill21/map-dit; its models' parameters were
counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.modelconfig import ModelConfig

PAPER = "arXiv:2505.19122"
CODE = "map-dit"
DATA = "imagenet128-latents"
METRIC = "FID@10000"

ALL = dict.fromkeys(PAPERS_FLAGS, True)
MODS = {"preset": "mods"}
FINAL_ADALN = {"conditioning": "rotation_scale", "final_conditioning": "adaln", **MODS}

PARAMETERS: tuple[tuple[int, dict[str, Any]], ...] = (
    (7_608_871, {"name": "DiT-XS/2", **MODS}),
    (32_849_739, {"name": "DiT-S/4", **MODS}),
    (32_794_443, {"name": "DiT-S/2", **MODS}),
    (130_174_539, {"name": "DiT-B/2", **MODS}),
    (30_951_243, {"name": "DiT-S/2", "conditioning": "rotation_scale", **MODS}),
    (31_024_971, {"name": "DiT-S/2", **FINAL_ADALN}),
    (31_080_267, {"name": "DiT-S/4", **FINAL_ADALN}),
    (27_264_818, {"name": "DiT-S/2", "conditioning": "rotation", **MODS}),
    (32_843_520, {"name": "DiT-S/2"}),
    (32_898_816, {"name": "DiT-S/4"}),
    (7_608_832, {"name": "DiT-XS/2"}),
    (33_227_534, {"name": "DiT-S/2", **ALL}),
    (33_282_830, {"name": "DiT-S/4", **ALL}),
    (7_864_840, {"name": "DiT-XS/2", **ALL}),
)
"""CODE: parameter counts of models (as a config spells them), for latents 4×16×16 and 1000 classes.
PAPER rounds two counts of DiT-S/2: 32.8 M with AdaLN, and 31.0 M (−5.4 %) with rotation and scale
if the final layer has AdaLN."""


@dataclass(frozen=True)
class PublishedStep:
    """A row of PAPER's Table 1: one set of flags, under AdaLN-Zero.

    Attributes:
        distance: FID-10K by model.
        relative: change of FID-10K from the model without flags, as a fraction. PAPER does not say
            for which of its two models.
        step_time: change of the running time from the model without flags, as a fraction.
    """

    flags: tuple[str, ...]
    distance: Mapping[str, float]
    relative: float | None = None
    step_time: float | None = None


LADDER = (
    PublishedStep(("cosine_attention", "weight_normalization"), {"DiT-XS/2": 86.49}),
    PublishedStep(
        ("cosine_attention", "weight_normalization", "forced_weight_normalization"),
        {"DiT-XS/2": 89.38},
    ),
    PublishedStep(PAPERS_FLAGS, {}, relative=-0.128, step_time=0.085),
)
LADDER_MODELS = ("DiT-XS/2", "DiT-S/4")


def parameters(run: Mapping[Any, Any]) -> int | None:
    """Return the published count for the model of a row of ``Study.runs``; None without one."""
    if run["data.name"] != DATA:
        return None
    for count, options in PARAMETERS:
        fields = ModelConfig.model_validate(options).model_dump(mode="json")
        # results of an older version lack the fields that came later
        if all(_plain(run.get(f"model.{k}", v)) == _plain(v) for k, v in fields.items()):
            return count
    return None


def _plain(value: Any) -> Any:
    """Convert a tuple to a list, because configs have tuples where files have lists."""
    return list(value) if isinstance(value, tuple) else value


def ladder(run: Mapping[Any, Any]) -> PublishedStep | None:
    """Return the row of Table 1 for the flags of a row of ``Study.runs``.

    None if the table does not have these flags, this model or these data.
    """
    setting = run["data.name"], run["model.conditioning"]
    if setting != (DATA, "adaln") or run["model"] not in LADDER_MODELS:
        return None
    return next((row for row in LADDER if set(row.flags) == set(run["flags"])), None)
