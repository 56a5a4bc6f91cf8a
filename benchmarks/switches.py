"""How long a step takes with each switch: ``python benchmarks/switches.py``.

One line a switch: the time of a training step with it over the time without it, in turns in one
process. For a switch of sampling it is the time of drawing samples, with 15 evaluations of the
model each. Both have the options that a switch needs, such as weight normalization. Ratios are
medians over the rounds; ``spread`` is half the distance between their quartiles, and a ratio nearer
to 1 than that is no difference.

``--flags all`` compares in a model with all of the paper's flags, except a flag that the option
replaces (``norm`` replaces no_layernorm). ``--only`` selects the switches whose names match a
pattern.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from latent_memory import sparse_store
from train_step import LATENTS, make_step

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.catalogue.switches import Switch, Tree, switches
from mpdit.config import RunConfig, make_run
from mpdit.errors import ConfigError
from mpdit.runtime.devices import prepare
from mpdit.runtime.memory import keep_freed_memory
from mpdit.sampling.drawing import Drawing, draw
from mpdit.training.trainer import build_model

WARM_UP = 2


GIVE_WAY = {"norm": "no_layernorm", "qk_norm": "cosine_attention", "positions": "mp_pos_enc"}
"""An option → the flag that it replaces."""


def run_of(switch: Switch, tree: Tree, base: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """The base's run with a switch's options, on or off."""
    model = {**base["model"], **tree.get("model", {})}
    for option, flag in GIVE_WAY.items():
        if option in switch.on.get("model", {}):
            model.pop(flag, None)
    others = {section: {**base[section], **tree.get(section, {})} for section in base}
    return make_run({**others, "model": model})


def seconds_of(config: RunConfig, device: torch.device, *, sampled: bool) -> Callable[[], float]:
    """A function that times a training step, or the drawing of a batch of samples."""
    if not sampled:
        step = make_step(config, device)
        return lambda: sum(step().values())
    model = build_model(config, device).eval()
    model.fold()
    drawing, indices = Drawing.of_run(config), range(config.train.batch_size)

    def sample() -> float:
        began = time.perf_counter()
        draw(model, drawing, indices, device)
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return sample


def measure(on: Callable[[], float], off: Callable[[], float], rounds: int) -> dict[str, float]:
    """The ratio of the two, its spread, and the seconds of each."""
    pairs = []
    for turn in range(WARM_UP + rounds):
        first, second = (on, off) if turn % 2 else (off, on)
        taken = first(), second()
        if turn >= WARM_UP:
            pairs.append(taken if turn % 2 else taken[::-1])
    ratios = [with_it / without for with_it, without in pairs]
    quarters = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [0, 0, 0]
    return {
        "ratio": statistics.median(ratios),
        "spread": (quarters[2] - quarters[0]) / 2,
        "seconds_on": statistics.median(with_it for with_it, _ in pairs),
        "seconds_off": statistics.median(without for _, without in pairs),
    }


def chosen(patterns: list[str]) -> list[Switch]:
    """The switches whose names match a pattern, or all."""
    found = [s for s in switches() if not patterns or any(fnmatch(s.name, p) for p in patterns)]
    if not found:
        sys.exit(f"switches: no switch matches {' '.join(patterns)}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="DiT-XS/2")
    parser.add_argument("--flags", choices=["all", "none"], default="none")
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given = parser.parse_args()
    found = chosen(given.only)
    keep_freed_memory()  # as the trainer does
    with tempfile.TemporaryDirectory() as store:
        sparse_store(Path(store), LATENTS)
        flags = dict.fromkeys(PAPERS_FLAGS, True) if given.flags == "all" else {}
        named = {"name": given.model, "time_embedding": "mp_fourier"} if flags else {}
        base = {
            "model": {"name": given.model, **named, **flags},
            "data": {"name": "imagenet128-latents", "path": store},
            "train": {
                "steps": 1_000_000,  # of which a few are taken, without probes
                "batch_size": given.batch_size,
                "precision": given.dtype,
                "compile": given.compile,
            },
            "sample": {"precision": given.dtype, "compile": given.compile},
        }
        prepare(given.dtype)
        if not given.json:
            print(f"{given.model}, {given.flags} flags, batch {given.batch_size}, {given.dtype},")
            print(f"{given.device}, {'compiled' if given.compile else 'not compiled'}")
            print(f"\n{'switch':34} {'ratio':>6} {'spread':>7} {'ms on':>8} {'ms off':>8}")
        for switch in found:
            line(switch, base, given)


def line(switch: Switch, base: dict[str, dict[str, Any]], given: argparse.Namespace) -> None:
    """Measure and print one switch."""
    try:
        runs = [run_of(switch, tree, base) for tree in (switch.on, switch.off)]
    except ConfigError as error:
        reason, runs = str(error), []
    else:
        reason = "on in both" if runs[0].id == runs[1].id else ""
    if reason:
        told: dict[str, Any] = {"left_out": reason}
    else:
        on, off = (seconds_of(run, given.device, sampled=switch.samples) for run in runs)
        told = measure(on, off, given.rounds)
        del on, off
        gc.collect()  # a trainer and its timed methods hold one another
    if given.json:
        what = {key: getattr(given, key) for key in ("model", "flags", "batch_size", "dtype")}
        print(json.dumps({"switch": switch.name, **what, "device": str(given.device), **told}))
    elif reason:
        print(f"{switch.name:34} left out: {reason}")
    else:
        times = f"{1000 * told['seconds_on']:8.1f} {1000 * told['seconds_off']:8.1f}"
        print(f"{switch.name:34} {told['ratio']:6.3f} ±{told['spread']:6.3f} {times}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
