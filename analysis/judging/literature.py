"""What has been published, to stand beside ours: each number with its source.

PAPER is Bill, Perez Jensen, Anagnostidis, von Rütte, *Exploring Magnitude Preservation and Rotation
Modulation in Diffusion Transformers*, 2025; its full tables were not to be had, and the numbers are
from secondary sources. CODE is its official code, ericbill21/map-dit, whose models were counted.
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
"""CODE: of models (as a config spells them) for latents 4×16×16 and 1000 classes. PAPER rounds two
of DiT-S/2: 32.8 M with AdaLN, 31.0 M (−5.4 %) with rotation and scale, the final layer AdaLN's."""


@dataclass(frozen=True)
class Ladder:
    """What PAPER's Table 1 says of one set of flags, under AdaLN-Zero.

    Attributes:
        distance: FID-10K by model.
        relative: FID-10K over that without flags, less one; of which of its two models is not said.
        step_time: running time over that without flags, less one.
    """

    flags: tuple[str, ...]
    distance: Mapping[str, float]
    relative: float | None = None
    step_time: float | None = None


LADDER = (
    Ladder(PAPERS_FLAGS[:2], {"DiT-XS/2": 86.49}),
    Ladder(PAPERS_FLAGS[:3], {"DiT-XS/2": 89.38}),
    Ladder(PAPERS_FLAGS, {}, relative=-0.128, step_time=0.085),
)
LADDER_MODELS = ("DiT-XS/2", "DiT-S/4")


def parameters(run: Mapping[Any, Any]) -> int | None:
    """The count of the model of a row of ``Study.runs``; None where it is not known."""
    if run["data.name"] != DATA:
        return None
    for count, options in PARAMETERS:
        fields = ModelConfig.model_validate(options).model_dump()
        if all(run[f"model.{key}"] == value for key, value in fields.items()):
            return count
    return None


def ladder(run: Mapping[Any, Any]) -> Ladder | None:
    """What Table 1 says of the flags of a row of ``Study.runs``.

    None where it says nothing, or the row's model or data are none of the table's.
    """
    setting = run["data.name"], run["model.conditioning"]
    if setting != (DATA, "adaln") or run["model"] not in LADDER_MODELS:
        return None
    return next((row for row in LADDER if row.flags == run["flags"]), None)
