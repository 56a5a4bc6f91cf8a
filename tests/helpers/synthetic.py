"""A made-up study on disk, as the launcher and the runs would leave it, in milliseconds.

The distances are chosen, so that the tables can be checked by hand.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import RunConfig, make_run
from mpdit.disk.files import append_row
from mpdit.disk.rundir import RunDir, RunState

STEPS, BLOCKS = 1000, 4

LADDER: dict[str, tuple[str, ...]] = {
    "A-none": (),
    "B-cosine": PAPERS_FLAGS[:1],
    "C-weight-norm": PAPERS_FLAGS[:2],
    "D-forced": PAPERS_FLAGS[:3],
    "E-all": PAPERS_FLAGS,
}
VARIANTS: dict[str, dict[str, Any]] = {
    **{name: dict.fromkeys(flags, True) for name, flags in LADDER.items()},
    "E-all_rotation": {**dict.fromkeys(PAPERS_FLAGS, True), "conditioning": "rotation"},
    "E-all_rotation-scale": {**dict.fromkeys(PAPERS_FLAGS, True), "conditioning": "rotation_scale"},
}
DISTANCES: dict[str, tuple[float, ...]] = {
    "A-none": (40.0, 44.0),
    "B-cosine": (39.0, 43.4),
    "C-weight-norm": (36.0, 38.0),
    "D-forced": (37.0, 37.5),
    "E-all": (30.0, 32.0),
    "E-all_rotation": (34.0, 33.0),
    "E-all_rotation-scale": (31.0, 32.5),
}
PARAMETERS = dict(zip(VARIANTS, (400, 400, 400, 400, 500, 450, 475), strict=True))
REFERENCE = {"data": "digits", "split": "all", "count": 1797, "hash": "r0"}


def config(model: dict[str, Any], seed: int, **train: Any) -> RunConfig:
    size = {"depth": BLOCKS, "width": 64, "heads": 4, "patch_size": 2}
    return make_run(
        {
            "model": {**size, **model},
            "data": "digits",
            "train": {"steps": STEPS, "batch_size": 64, **train},
            "seed": seed,
        }
    )


def write_study(path: Path, seeds: int = 2, **names: str) -> Path:
    """All of VARIANTS × seeds, every run done. ``names`` renames variants: ``E_all='…'``."""
    entries = []
    for order, (variant, model) in enumerate(VARIANTS.items()):
        label = names.get(variant.replace("-", "_"), variant)
        for seed in range(seeds):
            run = config(model, seed)
            folder = RunDir(path / f"{variant}_s{seed}-{run.id}")
            write_run(folder, run, DISTANCES[variant][seed], order, PARAMETERS[variant])
            entries.append(entry(folder, run, label, PARAMETERS[variant]))
    return write_listing(path, entries)


def write_listing(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "study.json").write_text(json.dumps({"study": path.name, "runs": entries}))
    return path


def entry(folder: RunDir, run: RunConfig, variant: str, parameters: int = 400) -> dict[str, Any]:
    return {
        "name": folder.name,
        "id": run.id,
        "variant": variant,
        "seed": run.seed,
        "axes": {"ladder": variant},
        "tune": {},
        "parameters": parameters,
        "steps": STEPS,
    }


def write_run(
    folder: RunDir, run: RunConfig, distance: float, order: int = 0, parameters: int = 400
) -> None:
    """A run that is done. ``order`` bends its curves, so that variants can be told apart."""
    folder.write_config(run)
    _write_training(folder, run, order)
    model = {"parameters": parameters, "parts": {"attention": parameters}, "flops": 10_000}
    (folder.path / "model.json").write_text(json.dumps(model))
    start = {
        "time": "2025-01-01T00:00:00Z", "code": "abc1234", "diff_sha": None, "python": "3.11.2",
        "packages": {"torch": "2.9.0"}, "host": "laptop", "device": "cpu", "threads": 1,
        "job": None,
    }  # fmt: skip
    (folder.path / "provenance.json").write_text(json.dumps({"starts": [start]}))
    folder.log.write_text("done\n")
    folder.write_state(RunState(stage="done", step=STEPS, steps=STEPS))
    write_samples(folder, order)
    write_evaluation(folder, distance, run.seed)


def _write_training(folder: RunDir, run: RunConfig, order: int) -> None:
    noise = np.random.default_rng(run.seed)
    for step in range(50, STEPS + 1, 50):
        mse = (1 - 0.03 * order) * (0.15 + np.exp(-step / 150)) * noise.uniform(0.95, 1.05)
        append_row(
            folder.path / "metrics.jsonl",
            {
                "step": step, "loss": mse + 0.01, "mse": mse, "vlb": 0.01, "grad_norm": 0.2,
                "learning_rate": 1e-3, "images_per_s": 1600.0, "memory_mb": 300.0,
                "seconds": 0.04 * step * (1 + order),
            },
        )  # fmt: skip
        growth = 1 + 0.8 * max(0, 4 - order) * step / STEPS
        for site in ("residual", "attention", "mlp", "modulated"):
            blocks = [growth ** (block / 2) for block in range(1, BLOCKS + 1)]
            row = {"step": step, "site": site, "blocks": blocks}
            append_row(folder.path / "magnitudes.jsonl", row)
        row = {"step": step, "site": "conditioning", "blocks": [0.9]}
        append_row(folder.path / "magnitudes.jsonl", row)


def write_samples(folder: RunDir, order: int = 0, count: int = 40, name: str = "samples") -> None:
    """Digits' shape; sample i has label i % 10 and the brightness 10 · label + order."""
    labels = np.arange(count) % 10
    images = np.zeros((count, 8, 8, 1), dtype=np.uint8)
    images[:, 2:6, 2:6, 0] = (100 + 10 * labels + order)[:, None, None]
    folder.samples.mkdir(exist_ok=True)
    np.savez(folder.samples / f"{name}.npz", images, labels)


def write_evaluation(folder: RunDir, distance: float, seed: int, **changes: Any) -> None:
    row = {
        "metric": "FD-digits@1000", "value": distance, "extractor": "digits", "weights": "w0",
        "count": 1000, "reference": REFERENCE,
        "sampling": {"steps": 50, "guidance": 1.5, "ema_std": 0.05, "seed": seed},
        "seconds": 3.0, **changes,
    }  # fmt: skip
    append_row(folder.path / "evaluation.jsonl", row)


def write_learning(folder: RunDir, order: int = 0) -> None:
    """What the probe says of weights, gradients and updates, and the activations of step 0."""
    for step in range(0, STEPS + 1, 50):
        sizes = {"weight": 0.1 * (1 + order * step / STEPS)}
        if step:
            sizes |= {"gradient": 1e-3 / (1 + step / 100), "update": 1e-2 / (1 + order)}
        for site, size in sizes.items():
            row = {"step": step, "site": site, "blocks": [size] * BLOCKS}
            append_row(folder.path / "magnitudes.jsonl", row)
    row = {"step": 0, "site": "residual", "blocks": [0.7] * BLOCKS}
    append_row(folder.path / "magnitudes.jsonl", row)


def write_sweep(folder: RunDir, distance: float, seed: int) -> None:
    """Other EMA widths, guidance scales and training steps; each a number away from the run's."""
    own = {"steps": 50, "guidance": 1.5, "ema_std": 0.05, "seed": seed, "snapshot": STEPS}
    (folder.path / "evaluation.jsonl").unlink()
    write_evaluation(folder, distance, seed, sampling=own)
    for key, changes in SWEEP.items():
        for value, change in changes.items():
            row = {**own, key: value}
            write_evaluation(folder, distance + change, seed, sampling=row, role="sweep")
    for width in SWEEP["ema_std"]:
        write_samples(folder, order=round(1000 * width), name=f"samples_ema{width:g}")
    both = {**own, "ema_std": 0.1, "guidance": 3.0}
    write_evaluation(folder, 99.0, seed, sampling=both, role="sweep")


SWEEP: dict[str, dict[float, float]] = {
    "ema_std": {0.03: 2.0, 0.1: 1.0},
    "guidance": {1.0: 3.0, 2.0: -1.0},
    "snapshot": {250: 40.0, 500: 10.0},
}


FACTORS: dict[str, tuple[Any, ...]] = {
    "model.cosine_attention": (False, True),
    "model.mp_silu": (False, True),
    "model.conditioning": ("adaln", "rotation", "rotation_scale"),
}
MAIN = {"cosine_attention": -4.0, "mp_silu": 1.0, "rotation": 2.0, "rotation_scale": 0.5}
TOGETHER = -3.0
"""What cosine attention and mp_silu do together beside what each does alone."""


def write_factorial(path: Path, seeds: int = 3) -> Path:
    """Every combination of FACTORS; the distance is 20, MAIN, TOGETHER, and noise of 0.1."""
    noise = np.random.default_rng(0)
    entries = []
    for number, values in enumerate(itertools.product(*FACTORS.values())):
        axes = dict(zip(FACTORS, values, strict=True))
        on = [key.removeprefix("model.") if v is True else v for key, v in axes.items() if v]
        mean = 20 + sum(MAIN.get(name, 0) for name in on)
        mean += TOGETHER * {"cosine_attention", "mp_silu"}.issubset(on)
        for seed in range(seeds):
            model = {key.removeprefix("model."): value for key, value in axes.items()}
            run = config(model, seed)
            folder = RunDir(path / f"v{number}_s{seed}-{run.id}")
            folder.write_config(run)
            write_evaluation(folder, mean + noise.normal(0, 0.1), seed)
            entries.append(entry(folder, run, f"v{number}") | {"axes": axes})
    return write_listing(path, entries)


TUNED: dict[str, dict[float, float]] = {
    "A-none": {1e-4: 30.0, 1e-3: 20.0, 1e-2: 25.0},
    "B-cosine": {1e-4: 40.0, 1e-3: 26.0, 1e-2: 22.0},
}
"""Variant → learning rate → the mean distance; seeds are one above and below."""


def write_tuned(path: Path, **names: str) -> Path:
    """Two variants, three learning rates, three seeds."""
    entries = []
    for variant, curve in TUNED.items():
        for rate, distance in curve.items():
            for seed in range(3):
                run = config(VARIANTS[variant], seed, learning_rate=rate)
                folder = RunDir(path / f"{variant}_s{seed}-{run.id}")
                folder.write_config(run)
                write_evaluation(folder, distance + seed - 1, seed)
                label = names.get(variant.replace("-", "_"), variant)
                tune = {"tune": {"train.learning_rate": rate}}
                entries.append(entry(folder, run, label) | tune)
    return write_listing(path, entries)
