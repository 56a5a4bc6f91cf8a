"""The official map-dit code's names, and the place of each of its tensors in mpdit's model.

Three generations are covered: `flags` (commit 4e3b269), `mods` (branch old-mod_opts, c799d37) and
`final` (branch final). mpdit's fused tensors (q, k, v; all parts of a modulation) hold the rows of
several official tensors.

``python -m mpdit.official convert OLD_RUN_DIR NEW_RUN_DIR`` converts an official run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mpdit.catalogue import PAPERS_FLAGS, PARTS, Dataset
from mpdit.errors import ConfigError
from mpdit.model.modulation import layout
from mpdit.modelconfig import ModelConfig

BUFFERS = {
    "positions": "pos_embed",
    "time.features.frequencies": "t_embedder.embedding.div_term",
    "time.features.scale": "t_embedder.embedding.scale",
    "time.features.shift": "t_embedder.embedding.shift",
}
"""mpdit's fixed tables → the official ones."""

SIZE = {
    "depth": "depth",
    "width": "hidden_size",
    "heads": "num_heads",
    "patch_size": "patch_size",
}


def model_options(official: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Convert the official arguments into the options of mpdit's model.

    Args:
        official: the constructor's `depth`, `hidden_size`, … or the command line's `model:
            DiT-S/2`, and `use_<flag>`, `<part>_mod` or `use_<part>_mod` switches.
        kind: the generation, `flags`, `mods` or `final`.

    Raises:
        KeyError: for a missing size.
    """
    options: dict[str, Any] = {"preset": kind}
    if "model" in official:
        options |= {"name": official["model"]}
    else:
        options |= {ours: official[theirs] for ours, theirs in SIZE.items()}
    if "attn_scale" in official:
        options |= {"residual_t": official["attn_scale"]}
    if kind == "flags":
        options |= {flag: official.get(f"use_{flag}", False) for flag in PAPERS_FLAGS}
    elif kind == "mods":
        parts = [part for part in PARTS if _is_on(official, part)]
        options |= {"conditioning": parts}
    return options


def _is_on(official: Mapping[str, Any], part: str) -> bool:
    """Whether a part is on, by the constructor's name or the command line's."""
    return bool(official.get(f"{part}_mod") or official.get(f"use_{part}_mod"))


def generation(names: Iterable[str], official: Mapping[str, Any]) -> str:
    """``flags``, ``mods`` or ``final``, by a run's tensors and arguments.

    Raises:
        ConfigError: for any other generation of the official code.
    """
    found = list(names)
    has = {part: any(part in name for name in found) for part in _TELLING}
    parts_named = any(key.endswith("_mod") for key in official)
    if has[".attn.q_proj."] and has[".modulation.net.1."]:
        return "flags"
    if has[".attn.qkv_proj."] and parts_named:
        return "mods"
    if has[".attn.qkv_weight"] and has[".mod_msa.shift_net.blend."]:
        return "final"
    raise ConfigError(
        "a run of branch main or another version of the official code cannot be converted: only "
        "those of commit 4e3b269 (eight flags), of branch old-mod_opts (conditioning by parts) and "
        "of branch final (rotation and blended shift) can"
    )


_TELLING = (
    ".attn.q_proj.",
    ".attn.qkv_proj.",
    ".modulation.net.1.",
    ".attn.qkv_weight",
    ".mod_msa.shift_net.blend.",
)
"""Parts of tensors' names that tell the generations apart."""


def dataset(official: Mapping[str, Any]) -> Dataset:
    """Return the shape of the data that the official model was built for."""
    return Dataset(
        channels=official["in_channels"],
        size=official["input_size"],
        classes=official["num_classes"],
        extractor="inception",
    )


def _modulation(prefix: str, sublayer: str, model: ModelConfig, gate: bool) -> list[str]:
    """Return the official linear maps of one sublayer's modulation (mods), in mpdit's order."""
    applied = [part for part in PARTS if part in model.parts and part != "gate"]
    names = {part: f"{prefix}.mod{sublayer}.mods.{i}.net.1" for i, part in enumerate(applied)}
    if gate:
        names["gate"] = f"{prefix}.gate{sublayer}.net.1"
    return [names[part] for part in layout(tuple(names))]


def parameter_sources(model: ModelConfig, kind: str) -> dict[str, list[str]]:
    """Map each parameter of mpdit to the official ones whose rows it consists of, in order."""
    if kind == "final":
        return _sources_of_final(model.depth)
    sources = {
        "patches": ["x_embedder"],
        "time.mlp.first": ["t_embedder.mlp.net.0"],
        "time.mlp.second": ["t_embedder.mlp.net.2"],
        "time.features": ["t_embedder.embedding"],
        "label": ["y_embedder.embedding"],
        "final.linear": ["final_layer.linear"],
    }
    separate = kind == "mods"
    sources["final.modulation.linear"] = (
        _modulation("final_layer", "", model, gate=False)
        if separate
        else ["final_layer.modulation.net.1"]
    )
    for i in range(model.depth):
        block = f"blocks.{i}"  # in both
        sources[f"{block}.attention.qkv"] = (
            [f"{block}.attn.qkv_proj"]
            if separate
            else [f"{block}.attn.{name}_proj" for name in "qkv"]
        )
        sources[f"{block}.attention.out"] = [f"{block}.attn.out_proj"]
        sources[f"{block}.mlp.first"] = [f"{block}.mlp.net.0"]
        sources[f"{block}.mlp.second"] = [f"{block}.mlp.net.2"]
        gate = "gate" in model.parts
        sources[f"{block}.modulation.linear"] = (
            _modulation(block, "1", model, gate) + _modulation(block, "2", model, gate)
            if separate
            else [f"{block}.modulation.net.1"]
        )
    return {
        f"{ours}.{leaf}": [f"{name}.{leaf}" for name in theirs]
        for ours, theirs in sources.items()
        for leaf in ("weight", "gain")
    }


def _sources_of_final(depth: int) -> dict[str, list[str]]:
    """`parameter_sources` of branch final, which has no gains."""
    sources = {
        "patches": ["x_embedder.weight"],
        "time.mlp.first": ["t_embedder.mlp.0.weight"],
        "time.mlp.second": ["t_embedder.mlp.2.weight"],
        "label": ["y_embedder.embedding_table.weight"],
        "final.linear": ["final_layer.linear.weight"],
    }

    def modulation(ours: str, theirs: list[str], zero: tuple[str, ...]) -> None:
        linear, unit = f"{ours}.modulation.linear", f"{ours}.modulation.unit"
        sources[linear] = [f"{prefix}.{net}.1.weight" for prefix in theirs for net in zero]
        sources[unit] = [f"{prefix}.shift_net.net.1.weight" for prefix in theirs]

    before = ("scale_net.net", "shift_net.blend")  # its scale is the rotation
    modulation("final", ["final_layer.modulation"], before)
    for i in range(depth):
        block = f"blocks.{i}"  # in both
        modulation(block, [f"{block}.mod_msa", f"{block}.mod_mlp"], (*before, "gate_net.net"))
        sources[f"{block}.attention.qkv"] = [f"{block}.attn.qkv_weight"]
        sources[f"{block}.attention.out"] = [f"{block}.attn.out_proj.weight"]
        sources[f"{block}.mlp.first"] = [f"{block}.mlp.net.0.weight"]
        sources[f"{block}.mlp.second"] = [f"{block}.mlp.net.2.weight"]
    return {f"{ours}.weight": theirs for ours, theirs in sources.items()}


def _at_least_1d(tensor: Tensor) -> Tensor:
    """Make a vector of a learned gain, which is a scalar in the official code."""
    return tensor if tensor.ndim else tensor[None]


def from_official(
    official: Mapping[str, Tensor], model: ModelConfig, kind: str
) -> dict[str, Tensor]:
    """Return official tensors (parameters, gradients, EMA weights) under mpdit's names.

    Raises:
        KeyError: naming the official tensors that have no place in the model.
    """
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for ours, theirs in parameter_sources(model, kind).items():
        if theirs and all(name in official for name in theirs):
            found[ours] = torch.cat([_at_least_1d(official[name]) for name in theirs])
            used.update(theirs)
    if unknown := sorted(set(official) - used):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise KeyError(f"the model has no place for {', '.join(unknown[:3])}{more}")
    return found
