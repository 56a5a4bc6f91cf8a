"""The time of a training step and of its matrix products: ``python benchmarks/train_step.py``.

The step is `Trainer.train_step` on latents 4×16×16 from a store: batch, forward and loss; backward;
optimizer (forced weight normalization, gradient norm, fused Adam); two EMAs. The floor is its
matrix products alone, in the same dtype, on operands with the same memory layout.

How near a step can come to the floor depends on the machine's memory. So the passes over memory
that every step needs are timed too (`bounds.py` lists them). ``bound_seconds`` is both together,
and ``passes_times_floor`` the least possible ``times_floor``, unless activations are computed
within the products.

All three take turns, so that other load of the machine affects each; seconds are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from bounds import Bounds, Clock
from latent_memory import sparse_store

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import RunConfig, make_run
from mpdit.data.latents import LatentSource, StorePlan
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.runtime.devices import prepare
from mpdit.runtime.distributed import World
from mpdit.runtime.memory import keep_freed_memory
from mpdit.runtime.session import Session
from mpdit.training.trainer import Trainer

PARTS = ("forward", "backward", "optimizer", "ema")
WARM_UP = 3
LATENTS = StorePlan(
    images=1024,
    classes=1000,
    channels=4,
    size=16,
    flips=2,
    shard_images=1024,
    source=LatentSource(data="none", hash="", pixels=128, vae="none", vae_hash=None),
)


def make_step(config: RunConfig, device: torch.device) -> Callable[[], dict[str, float]]:
    """The trainer's own step, on latents from a store, which returns the times of its parts."""
    run = RunDir(Path(config.data.path or "."))
    trainer = Trainer(config, Session(run), device, World())
    clock, marks = Clock(device), dict[str, tuple[Callable[[], float], Callable[[], float]]]()
    if device.type == "cuda":
        assert clock.first  # before all others

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run_timed(*given: Any) -> Any:
            began = clock.mark()
            result = call(*given)
            marks[name] = began, clock.mark()
            return result

        return run_timed

    trainer._losses = timed("losses", trainer._losses)  # type: ignore[method-assign]
    trainer.gradients = timed("gradients", trainer.gradients)  # type: ignore[method-assign]
    trainer.ema.update = timed("ema", trainer.ema.update)  # type: ignore[method-assign]
    train_step = timed("step", trainer.train_step)

    def step() -> dict[str, float]:
        trainer.step += 1
        train_step()
        clock.synchronize()
        spent = {name: ended() - began() for name, (began, ended) in marks.items()}
        forward, gradients, ema = spent["losses"], spent["gradients"], spent["ema"]
        parts = forward, gradients - forward, spent["step"] - gradients - ema, ema
        return dict(zip(PARTS, parts, strict=True))

    return step


def measure(config: RunConfig, device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of a step, of its parts, and of its floor: medians over the rounds."""
    step, bounds = make_step(config, device), Bounds(config, device)
    steps, floors, passes = [], [], []
    for turn in range(WARM_UP + rounds):
        seconds = step(), bounds.products(), bounds.passes()
        if turn >= WARM_UP:
            steps.append(seconds[0])
            floors.append(seconds[1])
            passes.append(seconds[2])
    per_step = statistics.median(sum(parts.values()) for parts in steps)
    return {
        "seconds_per_step": per_step,
        "images_per_s": config.train.batch_size / per_step,
        **{f"{p}_seconds": statistics.median(parts[p] for parts in steps) for p in PARTS},
        "floor_seconds": statistics.median(floors),
        "passes_seconds": statistics.median(passes),
        "passes_times_floor": statistics.median(
            (floor + passed) / floor for floor, passed in zip(floors, passes, strict=True)
        ),
        "bound_seconds": statistics.median(map(sum, zip(floors, passes, strict=True))),
        "times_floor": statistics.median(
            sum(parts.values()) / floor for parts, floor in zip(steps, floors, strict=True)
        ),
        "times_bound": statistics.median(
            sum(parts.values()) / (floor + passed)
            for parts, floor, passed in zip(steps, floors, passes, strict=True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="DiT-S/2")
    parser.add_argument("--flags", choices=["all", "none"], default="all")
    parser.add_argument("--conditioning", default="adaln")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the model, such as norm=rms, mlp=swiglu or positions=rope",
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    given = parser.parse_args()
    what = {
        "model": given.model,
        "flags": given.flags,
        "conditioning": given.conditioning,
        "set": given.set,
        "batch_size": given.batch_size,
        "dtype": given.dtype,
        "compile": given.compile,
        "device": str(given.device),
    }
    flags = dict.fromkeys(PAPERS_FLAGS, given.flags == "all")
    options = {
        name: yaml.safe_load(value) for name, _, value in (s.partition("=") for s in given.set)
    }
    named = {"name": given.model, "conditioning": given.conditioning}
    model = {**named, **flags, **options}
    train = {
        "steps": 1_000_000,  # of which a few are taken, without probes
        "batch_size": given.batch_size,
        "precision": given.dtype,
        "compile": given.compile,
    }
    keep_freed_memory()  # as the trainer does
    with tempfile.TemporaryDirectory() as store:
        sparse_store(Path(store), LATENTS)
        data = {"name": "imagenet128-latents", "path": store}
        try:
            config = make_run({"model": model, "data": data, "train": train})
            prepare(config.train.precision)
        except ConfigError as error:
            sys.exit(f"train_step: {error}")
        measured = measure(config, given.device, given.rounds)
    if given.json:
        print(json.dumps({**what, **measured}))
        return
    print(", ".join(f"{name} {value}" for name, value in what.items()))
    for name, value in measured.items():
        print(f"{name:20} {value:9.4f}")


if __name__ == "__main__":
    main()
