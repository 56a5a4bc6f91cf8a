"""Compare the device with the CPU: outputs and gradients in float64, and samples."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gpu_checks.bench import Bench, relative
from gpu_checks.frame import Row
from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import DataConfig, make_run
from mpdit.model import DiT
from mpdit.model.layers import to_length
from mpdit.modelconfig import ModelConfig
from mpdit.runtime.devices import prepare
from mpdit.sampling.drawing import Drawing, draw
from mpdit.training.trainer import build_model

ALL = dict.fromkeys(PAPERS_FLAGS, True)
MODELS: dict[str, dict[str, Any]] = {
    "no flags": {},
    "all flags": ALL,
    "rotation_scale": {"preset": "mods", "conditioning": "rotation_scale"},
    "mp_attention": {**ALL, "mp_attention": True},
    "rms, swiglu, rope": {"norm": "rms", "mlp": "swiglu", "positions": "rope"},
}
SHAPE = {"depth": 3, "width": 288, "heads": 4, "patch_size": 2}
"""Heads of 72, which are XL's."""
SMALL = {**SHAPE, "depth": 1, "width": 144, "heads": 2}
MOST = {"float32": 4.0, "bfloat16": 4.0, "tf32": 240.0}
"""The most errors, as multiples of the CPU's; tf32 has 13 bits fewer than float32."""
LEVELS = 0.5
"""The most difference of a sample from the CPU's, in levels of 256."""


def numerics(at: Bench) -> Iterator[Row]:
    """Compare outputs and gradients in each precision with the CPU's in float64.

    The measure is the CPU's own error in the same precision (for tf32, in float32).
    """
    kinds = list(MODELS.items())[: 2 if at.tiny else None]
    for kind, options in kinds:
        case = _Case((SMALL if at.tiny else SHAPE) | options)
        exact = case.run(torch.device("cpu"), torch.float64)
        for precision in at.precisions:
            prepare("float32")
            own = case.run(torch.device("cpu"), torch.float32, precision)
            prepare(precision)
            found = case.run(at.place, torch.float32, precision)
            errors = [relative(a, b) for a, b in zip(found, exact, strict=True)]
            usual = [relative(a, b) for a, b in zip(own, exact, strict=True)]
            most = MOST[precision]
            good = all(a < most * b + 1e-6 for a, b in zip(errors, usual, strict=True))
            name = f"{kind}, {precision}"
            yield Row(name, {"output, gradients": errors, "the CPU's": usual}, good)
    rows = torch.randn(5, 33, dtype=torch.float64, device=at.place, requires_grad=True)
    lengths = torch.rand(5, 1, dtype=torch.float64, device=at.place, requires_grad=True)
    good = torch.autograd.gradcheck(to_length, (rows, lengths))
    yield Row("gradients of to_length", "gradcheck", good)


class _Case:
    """A model without zeros, and a batch."""

    def __init__(self, options: dict[str, Any]) -> None:
        random = torch.Generator().manual_seed(0)
        config = ModelConfig.model_validate(options)
        self.model = DiT(config, DataConfig(name="imagenet128-latents").spec, generator=random)
        for parameter in self.model.parameters():
            if parameter.ndim == 1 or not parameter.any():
                parameter.data.normal_(std=0.02, generator=random)
        self.x = torch.randn(8, 4, 16, 16, generator=random)
        self.t, self.y = torch.arange(8) * 124, torch.arange(8)

    def run(
        self, device: torch.device, dtype: torch.dtype, precision: str = "float32"
    ) -> tuple[Tensor, Tensor]:
        """The output, and the gradients of its mean square."""
        model = copy.deepcopy(self.model).to(device, dtype)
        x, t, y = self.x.to(device, dtype), self.t.to(device), self.y.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            output = model(x, t, y)
        output = output.to(torch.promote_types(dtype, torch.float32))
        output.square().mean().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return output.detach(), torch.cat(gradients)


def samples(at: Bench) -> Iterator[Row]:
    """Compare samples of each kind of solver with the CPU's."""
    device = prepare("float32")
    config = make_run(
        {
            "model": {"depth": 2, "width": 64, "heads": 4, "patch_size": 2},
            "data": "digits",
            "train": {"steps": 1},
            "sample": {"steps": 5 if at.tiny else 20},
        }
    )
    for solver in ("ddpm", "ddim", "dpm++"):
        drawing = replace(Drawing.of_run(config), solver=solver)
        images = []
        for place in (torch.device("cpu"), device):
            model = build_model(config, torch.device("cpu"))
            random = torch.Generator().manual_seed(1)
            for parameter in model.parameters():
                parameter.data.add_(0.02 * torch.randn(parameter.shape, generator=random))
            model.to(place).fold()
            images.append(draw(model.eval(), drawing, range(30), place).float().cpu())
        levels = float((images[0] - images[1]).abs().max() * 127.5)
        yield Row(f"{solver}, levels of 256 from the CPU's", levels, levels < LEVELS)
