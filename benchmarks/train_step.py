"""A training step beside its matrix products alone: ``python benchmarks/train_step.py``.

The step is the trainer's: forced weight normalization, forward and loss, backward, gradient norm,
fused Adam, two EMAs. The floor is every product of it (of each linear map y = x Wᵀ, dx = dy W and
dW = dyᵀ x; of attention Q Kᵀ and A V and their four of the backward pass), in the same dtype, on
operands that lie as they lie in the step, and nothing else. The two take turns, so that what else
the machine does falls on both; seconds are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from mpdit.config import FLAGS, RunConfig, make_run
from mpdit.diffusion import Diffusion
from mpdit.ema import PowerEMA
from mpdit.errors import ConfigError
from mpdit.memory import keep_freed_memory
from mpdit.model import DiT
from mpdit.model.layers import MPLinear
from mpdit.train import parameter_groups

PARTS = ("forward", "backward", "optimizer", "ema")
WARM_UP = 3


class Clock:
    """Seconds since it was last asked, when the device is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.lap()

    def lap(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        passed, self.last = now - getattr(self, "last", now), now
        return passed


def make_step(config: RunConfig, device: torch.device) -> Callable[[], dict[str, float]]:
    """A training step on random latents that says how long its parts took."""
    data, train = config.data.spec, config.train
    model = DiT(config.model, data).to(device)
    if train.compile:
        model.compile_blocks()
    diffusion, parameters = Diffusion().to(device), list(model.parameters())
    optimizer = torch.optim.Adam(parameter_groups(model, train), betas=train.adam_betas, fused=True)
    ema = PowerEMA(parameters, train.ema_stds)
    x0, noise = torch.randn(2, train.batch_size, data.channels, data.size, data.size, device=device)
    t, y = torch.randint(0, data.classes, (2, train.batch_size), device=device)
    bf16 = train.precision == "bfloat16"

    def step() -> dict[str, float]:
        clock = Clock(device)
        model.normalize_weights()
        normalization = clock.lap()
        x_t = diffusion.q_sample(x0, t, noise)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = model(x_t, t, y)
        loss = diffusion.loss(output.float(), x0, x_t, t, noise)["loss"].mean()
        forward = clock.lap()
        loss.backward()
        backward = clock.lap()
        torch.nn.utils.clip_grad_norm_(parameters, train.clip_norm or float("inf"), foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        optimization = normalization + clock.lap()
        ema.update(2)
        return dict(zip(PARTS, (forward, backward, optimization, clock.lap()), strict=True))

    return step


def make_floor(config: RunConfig, device: torch.device) -> Callable[[], float]:
    """The seconds of one step's matrix products."""
    model = DiT(config.model, config.data.spec)
    rows: list[tuple[int, int, int]] = []

    def note(linear: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(linear, MPLinear)
        outputs, features = linear.weight.shape
        rows.append((inputs[0].numel() // features, features, outputs))

    for module in model.modules():
        if isinstance(module, MPLinear):
            module.register_forward_pre_hook(note)
    B, data = config.train.batch_size, config.data.spec
    label = torch.zeros(B, dtype=torch.int64)
    with torch.no_grad():
        model(torch.zeros(B, data.channels, data.size, data.size), label, label)

    dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device)

    linears = [(random(n, i), random(o, i), random(n, o)) for n, i, o in rows]
    heads, T = B * config.model.heads, model.side**2
    matrix = heads, T, config.model.width // config.model.heads
    attentions = [
        ([random(*matrix) for _ in range(4)], [random(heads, T, T) for _ in range(2)])
        for _ in range(config.model.depth)
    ]

    def products() -> Iterator[Tensor]:
        for x, weight, _ in linears:
            yield x @ weight.T
        for (q, k, v, _), (a, _) in attentions:
            yield q @ k.mT
            yield a @ v
        for x, weight, dy in linears:
            yield dy @ weight
            yield dy.T @ x
        for (q, k, v, do), (a, ds) in attentions:
            yield a.mT @ do
            yield do @ v.mT
            yield ds @ k
            yield ds.mT @ q

    def floor() -> float:
        clock = Clock(device)
        for _ in products():
            pass
        return clock.lap()

    return floor


def measure(config: RunConfig, device: torch.device, rounds: int) -> dict[str, float]:
    """Seconds of a step, of its parts, and of its floor: medians over the rounds."""
    step, floor = make_step(config, device), make_floor(config, device)
    steps, floors = [], []
    for turn in range(WARM_UP + rounds):
        seconds = step(), floor()
        if turn >= WARM_UP:
            steps.append(seconds[0])
            floors.append(seconds[1])
    per_step = statistics.median(sum(parts.values()) for parts in steps)
    return {
        "seconds_per_step": per_step,
        "images_per_s": config.train.batch_size / per_step,
        **{f"{p}_seconds": statistics.median(parts[p] for parts in steps) for p in PARTS},
        "floor_seconds": statistics.median(floors),
        "times_floor": statistics.median(
            sum(parts.values()) / floor for parts, floor in zip(steps, floors, strict=True)
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="DiT-S/2")
    parser.add_argument("--flags", choices=["all", "none"], default="all")
    parser.add_argument("--conditioning", default="adaln")
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
        "batch_size": given.batch_size,
        "dtype": given.dtype,
        "compile": given.compile,
        "device": str(given.device),
    }
    try:
        config = make_run(
            {
                "model": {
                    "name": given.model,
                    "conditioning": given.conditioning,
                    **dict.fromkeys(FLAGS, given.flags == "all"),
                },
                "data": "imagenet128-latents",
                "train": {
                    "steps": 1,
                    "batch_size": given.batch_size,
                    "precision": given.dtype,
                    "compile": given.compile,
                },
            }
        )
    except ConfigError as error:
        sys.exit(f"train_step: {error}")
    keep_freed_memory()  # as the trainer does
    measured = measure(config, given.device, given.rounds)
    if given.json:
        print(json.dumps({**what, **measured}))
        return
    print(", ".join(f"{name} {value}" for name, value in what.items()))
    for name, value in measured.items():
        print(f"{name:20} {value:9.4f}")


if __name__ == "__main__":
    main()
