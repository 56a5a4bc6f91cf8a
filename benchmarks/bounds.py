"""Lower bounds of a training step's time: its matrix products, and its passes over memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

from mpdit.config import RunConfig
from mpdit.model import DiT
from mpdit.model.layers import MPLinear


class Clock:
    """Measures the time at which the device is done."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        self.synchronize()
        return time.perf_counter()

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def mark(self) -> Callable[[], float]:
        """Mark this point of the device's work without waiting; return a function for its seconds.

        The host runs ahead of a GPU: waiting after each part would time launches too.
        """
        if self.device.type != "cuda":
            now = time.perf_counter()
            return lambda: now
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return lambda: self.first.elapsed_time(event) / 1e3

    @cached_property
    def first(self) -> torch.cuda.Event:
        """The event from which marks are counted."""
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Bounds:
    """One step's products and passes, on their own memory.

    The products: y = x Wᵀ, dx = dy W and dW = dyᵀ x of each linear map; Q Kᵀ and A V of attention,
    and the four products of their backward pass.

    The passes: the training state (weights, Adam's two moments, the averages) is read and written
    once, and the gradients are read. Forward and backward, the output of each linear map is read
    once by the next operation (an activation, a norm, a sum), which writes as much.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.clock = Clock(device)
        model = DiT(config.model, config.data.spec)
        dtype = torch.bfloat16 if config.train.precision == "bfloat16" else torch.float32

        def random(*shape: int) -> Tensor:
            return torch.randn(shape, dtype=dtype, device=device)

        shapes = linear_shapes(model, config.train.batch_size)
        self.linears = [(random(n, i), random(o, i), random(n, o)) for n, i, o in shapes]
        heads, T = config.train.batch_size * config.model.heads, model.side**2
        matrix = heads, T, config.model.width // config.model.heads
        self.attentions = [
            ([random(*matrix) for _ in range(4)], [random(heads, T, T) for _ in range(2)])
            for _ in range(config.model.depth)
        ]

        parameters = [parameter.detach().to(device) for parameter in model.parameters()]
        copies = 3 + len(config.train.ema_stds)
        self.state = [torch.zeros_like(p) for p in parameters for _ in range(copies)]
        self.gradients = [torch.zeros_like(p) for p in parameters]
        self.activations = [torch.zeros_like(y) for _, _, y in self.linears]

    def products(self) -> float:
        """The seconds of the products."""
        began = self.clock.now()
        for _ in self._products():
            pass
        return self.clock.now() - began

    def _products(self) -> Iterator[Tensor]:
        for x, weight, _ in self.linears:
            yield x @ weight.T
        for (q, k, v, _), (a, _) in self.attentions:
            yield q @ k.mT
            yield a @ v
        for x, weight, dy in self.linears:
            yield dy @ weight
            yield dy.T @ x
        for (q, k, v, do), (a, ds) in self.attentions:
            yield a.mT @ do
            yield do @ v.mT
            yield ds @ k
            yield ds.mT @ q

    def passes(self) -> float:
        """The seconds of the passes."""
        began = self.clock.now()
        torch._foreach_neg_(self.state)
        for gradient in self.gradients:
            gradient.sum()
        for _ in ("forward", "backward"):
            for (_, _, y), result in zip(self.linears, self.activations, strict=True):
                torch.neg(y, out=result)
        return self.clock.now() - began


def linear_shapes(model: DiT, batch: int) -> list[tuple[int, int, int]]:
    """(rows, inputs, outputs) of each linear map in a forward pass."""
    shapes: list[tuple[int, int, int]] = []

    def note(linear: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(linear, MPLinear)
        outputs, features = linear.weight.shape
        shapes.append((inputs[0].numel() // features, features, outputs))

    for module in model.modules():
        if isinstance(module, MPLinear):
            module.register_forward_pre_hook(note)
    label = torch.zeros(batch, dtype=torch.int64)
    size = model.side * model.config.patch_size
    with torch.no_grad():
        model(torch.zeros(batch, model.channels, size, size), label, label)
    return shapes
