"""Runs with averaged weights that nobody has trained."""

from pathlib import Path

import torch

from mpdit.config import RunConfig
from mpdit.disk.identity import Identity
from mpdit.disk.rundir import RunDir
from mpdit.ema.power import snapshot_file, write_snapshot
from mpdit.model import DiT
from mpdit.training.trainer import build_model
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")
DATA = "d" * 16
"""The hash of the data that the snapshots name."""


def talking_model(config: RunConfig, seed: int = 0) -> DiT:
    """At initialization the output is zero: it is given something to say."""
    model = build_model(config, CPU)
    random = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(model.final.linear.weight, std=0.1, generator=random)
    return model


def trained(folder: Path, **changes: object) -> RunDir:
    """A run of 24 steps with its four snapshots, and nothing else."""
    run, config = RunDir(folder), tiny_config(**changes)
    run.write_config(config)
    run.ema.mkdir()
    for seed, step in enumerate((12, 24)):
        for std in config.train.ema_stds:
            state = talking_model(config, seed).state_dict()
            write_snapshot(
                snapshot_file(run.ema, std, step), state, Identity.of(config, DATA).mark()
            )
    return run
