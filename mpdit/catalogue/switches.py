"""The switches of the tables as a config sets them: `mpdit.flops` counts what each costs, and
benchmarks/switches.py times it.

A switch is compared with the same run without it. Both runs have the options that the switch needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mpdit.catalogue.flags import FLAGS, PAPERS_FLAGS
from mpdit.catalogue.methods import OBJECTIVES
from mpdit.catalogue.options import (
    GATES,
    MLPS,
    MODULATIONS,
    NORMS,
    OPTIMIZERS,
    POSITIONS,
    QK_NORMS,
    TIME_EMBEDDINGS,
)
from mpdit.catalogue.parts import MODES

Tree = Mapping[str, Mapping[str, Any]]
"""Section → options."""


@dataclass(frozen=True)
class Switch:
    """One switch.

    Attributes:
        name: as a grid writes it, without the section.
        on: the options of a run with the switch.
        off: the options of the run that it is compared with.
        samples: whether it changes sampling only, not training.
    """

    name: str
    on: Tree
    off: Tree = field(default_factory=dict)
    samples: bool = False

    @property
    def against(self) -> str:
        """The other run's options, in words; '' for none."""
        sections = [
            options for name, options in self.off.items() if self.samples or name != "sample"
        ]
        options = [item for section in sections for item in section.items()]
        return ", ".join(f"{name}: {str(value).lower()}" for name, value in options)


def switches() -> Iterator[Switch]:
    """Yield every switch, in the order of the tables."""
    normalized = {"weight_normalization": True}
    edm: Tree = {"train": {"objective": "edm"}, "sample": {"solver": "heun"}}
    for flag in FLAGS.values():
        switch = _model(f"{flag.name}: true", {flag.name: True}, dict.fromkeys(flag.needs, True))
        if flag.name == "learned_uncertainty":
            switch = Switch(switch.name, {**edm, **switch.on}, edm)
        yield switch
    yield _model("all of the paper's flags", dict.fromkeys(PAPERS_FLAGS, True))
    for preset in ("mods", "final"):
        yield _model(f"preset: {preset}", {"preset": preset})
    for mode in [*MODES][1:]:
        yield _model(f"conditioning: {mode}", {"conditioning": mode})
    blended, plain = ({"conditioning": f"{part}+gate"} for part in ("blended_shift", "shift"))
    yield _model("conditioning: blended_shift+gate", blended, plain)
    for table in (NORMS, QK_NORMS, MLPS, POSITIONS, GATES, MODULATIONS, TIME_EMBEDDINGS):
        key = table.key.removeprefix("model.")
        needed = normalized if table is MODULATIONS else {}
        for value in [*table][1:]:
            if f"{key}: {value}" not in ("norm: none", "qk_norm: cosine"):  # flags, above
                yield _model(f"{key}: {value}", {key: value}, needed)
    for key in ("mp_attention", "mp_attention_output", "mean_free_positions", "mean_free_table"):
        yield _model(f"{key}: true", {key: True})
    yield _model("zero_output: false", {"zero_output": False}, normalized)
    for value in [*OPTIMIZERS][1:]:
        yield Switch(f"optimizer: {value}", {"train": {"optimizer": value}})
    yield Switch("weight_decay: 0.1", {"train": {"weight_decay": 0.1}})
    for row in [*OBJECTIVES.values()][1:]:
        train = {"objective": row.name}
        sample = {"sample": {"solver": "heun"}} if row.continuous else {}
        yield Switch(f"objective: {row.name}", {"train": train, **sample})
    fifteen, of_heun = {"solver": "ddim", "steps": 15}, {"solver": "heun", "steps": 8}
    for solver in ("ddpm", "dpm++"):
        on = {"solver": solver, "steps": 15}
        yield Switch(f"solver: {solver}", {"sample": on}, {"sample": fifteen}, samples=True)
    heun: Tree = {"train": {"objective": "flow"}, "sample": of_heun}
    yield Switch("solver: heun", heun, {"sample": fifteen}, samples=True)
    interval = {**fifteen, "guidance_interval": [0.3, 5.0]}
    yield Switch(
        "guidance_interval: [0.3, 5]", {"sample": interval}, {"sample": fifteen}, samples=True
    )


def _model(name: str, on: dict[str, Any], off: dict[str, Any] | None = None) -> Switch:
    return Switch(name, {"model": {**(off or {}), **on}}, {"model": off} if off else {})
