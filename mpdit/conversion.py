"""A run of the official map-dit code as a run of ours: weights, EMA snapshots, config.

It reads what `train.py` of that code leaves: ``config.yaml`` (its arguments), ``checkpoints/
<step>.pt`` ({"model": …}) and ``ema/<width>_<step>.pt`` ({"std", "t", "state_dict"}, in half
precision), with torch's safe loader only.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

from mpdit import checkpoint, reference
from mpdit.config import DATASETS, FLAGS, ConfigError, RunConfig, make_run
from mpdit.ema import PowerEMA
from mpdit.model import DiT
from mpdit.provenance import record_start
from mpdit.study.rundir import EXIT_DONE, EXIT_USAGE, RunDir, write_atomic
from mpdit.train import MEASURES, parameter_groups, snapshot_file

State = dict[str, Tensor]

INVERTED = (
    "the EMA snapshots were made by the official code's inverted update (weight β on the new "
    "parameters): they are nearly the raw weights, not averages of their nominal width"
)
HOLDERS = ("state_dict", "model", "ema")
"""Where in a .pt file the state dict may lie."""
FIXED = {"mlp_ratio": 4.0, "learn_sigma": True, "attn_scale": 0.3}
"""Official arguments of which our model knows one value only."""
TABLE_TOLERANCE = 2e-3
"""Between a stored table and ours: what half precision leaves of numbers up to 1.5."""


@dataclass(frozen=True)
class Snapshot:
    """One file of ``ema/``: its relative width, its step, where it is."""

    std: float
    step: int
    file: Path


def convert(old: Path, new: Path) -> list[str]:
    """Make the run directory ``new`` of the official run ``old``.

    Returns:
        what a reader of the new run must know, one sentence each; they are in its log.txt too.

    Raises:
        ConfigError: when ``old`` is no such run, or ``new`` is there already; nothing is written.
    """
    if new.exists():
        raise ConfigError(f"{new} is there already")
    checkpoints, snapshots = _checkpoints(old), _snapshots(old)
    if not checkpoints and not snapshots:
        raise ConfigError(f"{old} has neither checkpoints/*.pt nor ema/*.pt")
    newest = max(checkpoints, default=None)
    steps = max((snapshot.step for snapshot in snapshots), default=newest or 0)
    first = checkpoints[newest] if newest is not None else snapshots[-1].file
    state = read_state(first)
    official = _official_config(old)
    kind = "mods" if any("attn.qkv_proj" in name for name in state) else "flags"
    config = run_config(official, kind, steps, sorted({s.std for s in snapshots}))
    converter = _Converter(config, kind)
    weights = converter(state, first)

    notes = [f"converted from a run of the official map-dit code ({kind} generation), step {steps}"]
    notes += _notes(snapshots, newest, steps, weights)
    new.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{new.name}.", dir=new.parent))
    try:
        run = RunDir(partial)
        run.write_config(config)
        shutil.copyfile(old / "config.yaml", partial / "official.yaml")
        run.ema.mkdir()
        for snapshot in snapshots:
            average = converter(read_state(snapshot.file), snapshot.file)
            save_file(
                {**average, **{name: weights[name] for name in converter.tables}},
                snapshot_file(run.ema, snapshot.std, snapshot.step),
            )
            if newest != steps and (snapshot.std, snapshot.step) == (config.sample.ema_std, steps):
                weights = average
        if not snapshots:
            save_file(weights, snapshot_file(run.ema, config.sample.ema_std, steps))
        _save_checkpoint(run, config, weights)
        _record(run, old, notes)
        partial.chmod(0o777 & ~_umask())
        partial.rename(new)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return notes


def read_state(file: Path) -> State:
    """The state dict of one official .pt file, without the prefix that compilation leaves.

    Half-precision tensors come back as float32.

    Raises:
        ConfigError: when it cannot be read without unpickling code, holds no state dict, or is of
            the original DiT release.
    """
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        raise ConfigError(
            f"{file} is damaged, or holds more than tensors (pickled code is not loaded)"
        ) from None
    state = content
    if isinstance(content, Mapping):
        held = (content[key] for key in HOLDERS if isinstance(content.get(key), Mapping))
        state = next(held, content)
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        found = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content)
        raise ConfigError(f"{file} holds no state dict; found: {found}")
    names = {str(name).replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    if "x_embedder.proj.weight" in names or "blocks.0.attn.qkv.weight" in names:
        raise ConfigError(
            f"{file} is of the original DiT release, not of map-dit: its layers have biases "
            "(fused qkv, convolutional patches), which this model has not"
        )
    half = (torch.float16, torch.bfloat16)
    return {name: t.float() if t.dtype in half else t for name, t in names.items()}


def run_config(official: Mapping[str, Any], kind: str, steps: int, stds: list[float]) -> RunConfig:
    """The official arguments → our config, trained for ``steps``.

    Raises:
        ConfigError: naming the argument that is missing, or that has no counterpart.
    """
    for key, value in FIXED.items():
        if official.get(key, value) != value:
            raise ConfigError(f"{key}: {official[key]} has no counterpart here, only {value}")
    switches = {key for key, value in official.items() if key.startswith("use_") and value}
    if odd := sorted(switches - {f"use_{flag}" for flag in FLAGS}):
        raise ConfigError(f"{odd[0]} has no counterpart here")
    try:
        model, data = reference.model_options(official, kind), reference.dataset(official)
    except KeyError as error:
        raise ConfigError(f"the official config.yaml has no {error.args[0]}") from None
    name = next((name for name, known in DATASETS.items() if known == data), None)
    shape = {"channels": data.channels, "size": data.size, "classes": data.classes}
    planned = int(official.get("num_steps") or steps)
    rate = float(official.get("lr") or (1e-4 if kind == "flags" else 1e-2))
    rates = {"learning_rate": 1e-4, "mp_learning_rate": rate, "clip_norm": 0.1}
    return make_run(
        {
            "model": model,
            "data": {"name": name} if name else {"name": "latents", **shape},
            "train": {
                "steps": steps,
                "batch_size": official.get("batch_size", 256),
                **(rates if kind == "mods" else {"learning_rate": rate}),
                "warmup_steps": official.get("num_lin_warmup") or planned // 150,
                "constant_steps": official.get("start_decay") or max(1, planned // 10),
                "label_dropout": official.get("class_dropout_prob", 0.1),
                "ema_stds": stds,
                "snapshot_every": max(1, planned // 250),
            },
            "sample": {"guidance": 1.0 if kind == "mods" else 1.5, "ema_std": stds[0]},
            "seed": official.get("seed", 0),
        }
    )


class _Converter:
    """Official state dicts → ours, for one model; fixed tables are held against our own."""

    def __init__(self, config: RunConfig, kind: str) -> None:
        self.config, self.kind = config, kind
        self.model = DiT(config.model, config.data.spec)
        parameters = dict(self.model.named_parameters())
        self.tables = self.model.state_dict().keys() - parameters.keys()
        self.shapes = {name: tensor.shape for name, tensor in self.model.state_dict().items()}

    def __call__(self, state: State, file: Path) -> State:
        """What a snapshot of ours holds, under our names.

        Raises:
            ConfigError: naming the tensor that is missing, left over, or of another shape.
        """
        buffers = dict(self.model.named_buffers())
        stored = {ours: state[theirs] for ours, theirs in reference.BUFFERS.items() if theirs in state}
        rest = {name: tensor for name, tensor in state.items() if name not in TABLES}
        try:
            converted = reference.from_official(rest, self.config.model, self.kind)
        except KeyError as error:
            raise ConfigError(f"{file}: {error.args[0]}") from None
        for name, table in stored.items():
            if name in self.tables:
                converted[name] = table.reshape(buffers[name].shape)
            elif not _same_table(table, buffers.get(name)):
                raise ConfigError(f"{file}: {reference.BUFFERS[name]} is not this model's table")
        for name, shape in self.shapes.items():
            if name not in converted:
                raise ConfigError(f"{file} has nothing for {name}")
            if converted[name].shape != shape:
                found = tuple(converted[name].shape)
                raise ConfigError(f"{file}: {name} is {found}, not {tuple(shape)} as config.yaml says")
        return {name: converted[name].contiguous() for name in self.shapes}


