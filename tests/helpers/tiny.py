"""Runs that take a second."""

from pathlib import Path

from mpdit.config import RunConfig, make_run
from mpdit.disk.rundir import RunDir


def tiny_config(**changes: object) -> RunConfig:
    """A run of a second: one block, 24 steps. ``changes`` are sections' options: train={...}."""
    tree: dict[str, dict[str, object]] = {
        "model": {"depth": 1, "width": 16, "heads": 2, "patch_size": 4},
        "data": {"name": "digits"},
        "train": {
            "steps": 24,
            "batch_size": 8,
            "learning_rate": 1e-3,
            "snapshot_every": 12,
            "checkpoint_every": 10,
            "log_every": 5,
            "probe_every": 8,
        },
        "sample": {"count": 50, "steps": 4, "batch_size": 20},
    }
    for section, options in changes.items():
        if isinstance(options, dict):
            tree.setdefault(section, {}).update(options)
        else:
            tree[section] = options  # type: ignore[assignment]
    return make_run(tree)


def make(folder: Path, **changes: object) -> RunDir:
    """The folder of a tiny run that has not begun (`tiny_config`)."""
    run = RunDir(folder)
    run.write_config(tiny_config(**changes))
    return run
