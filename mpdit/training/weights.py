"""The normalized weights of a model, made once a training step for all its forward passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from mpdit.model import DiT
from mpdit.model.layers import EPS, MPEmbedding, MPLinear

TINY = torch.finfo(torch.float32).tiny

Weights = Float[Tensor, "*weights rows inputs"]
PerRow = Float[Tensor, " rows"]


class StepWeights:
    """Normalizes all weights of a model together: weights of one shape take one call.

    A linear map by itself normalizes its weight w in each forward pass, and autograd finds the
    gradient by w. Within `normalized` the parameters hold W = w·length / (‖w‖ + 1e-4), and their
    gradients are by W. At its end they hold w again, and have the gradients by w. It is the same
    function; the numbers differ in their last bits.

    Create it before anything refers to the parameters' memory: it moves weights of one shape side
    by side.

    Args:
        compiled: whether the model's blocks are compiled. They normalize their weights by
            themselves then, within their programs, and forced normalization is a program too.
    """

    def __init__(self, model: DiT, *, compiled: bool) -> None:
        self.force_compiled = torch.compile(_force) if compiled else None
        forced = model.config.forced_weight_normalization
        by_shape: dict[torch.Size, list[MPLinear]] = {}
        tables: list[Tensor] = []
        for module in model.modules():
            if isinstance(module, MPLinear) and module.normalized:
                by_shape.setdefault(module.weight.shape, []).append(module)
            elif isinstance(module, MPEmbedding) and module.normalized:
                tables += [module.weight.detach()] if forced or module is model.label else []
        self.shapes = [_Shape(linears) for linears in by_shape.values()]
        self.stored = [shape.stored for shape in self.shapes]
        self.forced = [*self.stored, *tables] if forced else tables
        self.scale = _Rows(self.forced)
        self.roots = _Rows(self.forced)
        for weights, roots in zip(self.forced, self.roots.parts, strict=True):
            roots.fill_(math.sqrt(weights.shape[-1]))
        rows = (_Rows(self.stored) for _ in range(5))
        self.length, self.norm, self.inverse, self.factor, self.along = rows
        for shape, lengths in zip(self.shapes, self.length.parts, strict=True):
            lengths.copy_(shape.length)

    @torch.no_grad()
    def force(self) -> None:
        """Forced weight normalization (EDM2 eq. 66), in place, as `DiT.normalize_weights`."""
        if self.force_compiled is not None:
            self.force_compiled(self.forced)
        elif self.forced:
            self.scale.measure(self.forced)
            self.scale.all.add_(EPS).reciprocal_().mul_(self.roots.all)
            torch._foreach_mul_(self.forced, self.scale.parts)

    @contextmanager
    def normalized(self) -> Iterator[None]:
        """The context in which gradients are computed."""
        if not self.shapes or self.force_compiled is not None:
            yield
            return
        self._enter()
        try:
            yield
        finally:
            self._leave()

    @torch.no_grad()
    def _enter(self) -> None:
        self.norm.measure(self.stored)
        torch.add(self.norm.all, EPS, out=self.inverse.all).reciprocal_()
        torch.mul(self.inverse.all, self.length.all, out=self.factor.all)
        for shape, factor in zip(self.shapes, self.factor.parts, strict=True):
            torch.mul(shape.stored, factor, out=shape.used)
            shape.hold(shape.used_by_map, ready=True)

    @torch.no_grad()
    def _leave(self) -> None:
        """Per row, ∂w = factor ∂W − (∂W · w) factor / ((‖w‖ + 1e-4) ‖w‖) w."""
        taught = []
        for shape, dot in zip(self.shapes, self.along.parts, strict=True):
            shape.hold(shape.stored_by_map, ready=False)
            gradients = shape.gradients()
            torch.sum(gradients * shape.stored, -1, keepdim=True, out=dot)
            taught.append(gradients)
        along = self.along.all.mul_(self.factor.all).mul_(self.inverse.all)
        along.div_(self.norm.all.clamp_(min=TINY))
        torch._foreach_mul_(taught, self.factor.parts)
        torch._foreach_addcmul_(taught, self.stored, self.along.parts, value=-1)
        for shape, gradients in zip(self.shapes, taught, strict=True):
            shape.teach(gradients)


def _force(weights: list[Tensor]) -> None:
    for rows in weights:
        norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
        rows.mul_(math.sqrt(rows.shape[-1]) / (norm + EPS))


class _Shape:
    """The linear maps whose weights have one shape, and their weights side by side."""

    def __init__(self, maps: Sequence[MPLinear]) -> None:
        self.maps = maps
        self.parameters = [linear.weight for linear in maps]
        self.stored: Weights = torch.stack([p.detach() for p in self.parameters])
        self.used: Weights = torch.empty_like(self.stored)
        self.stored_by_map, self.used_by_map = self.stored.unbind(), self.used.unbind()
        lengths = [1.0 if linear.gain is not None else linear.length for linear in maps]
        self.length = self.stored.new_tensor(lengths).view(-1, 1, 1)
        self.hold(self.stored_by_map, ready=False)

    def hold(self, weights: Sequence[Tensor], *, ready: bool) -> None:
        """Set the parameters to these weights."""
        for linear, parameter, weight in zip(self.maps, self.parameters, weights, strict=True):
            parameter.data = weight
            linear.ready = ready

    def gradients(self) -> Weights:
        """A copy of the gradients, side by side; of parameters without any they are zero."""
        return torch.stack(
            [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
        )

    def teach(self, gradients: Weights) -> None:
        """Set the gradients of the parameters that have one."""
        for parameter, gradient in zip(self.parameters, gradients.unbind(), strict=True):
            if parameter.grad is not None:
                parameter.grad = gradient


class _Rows:
    """One number for each row of some weights, in one piece of memory, with a view per weight."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        shapes = [(*rows.shape[:-1], 1) for rows in weights]
        self.all: PerRow = (weights[0] if weights else torch.empty(0)).new_empty(
            sum(map(math.prod, shapes))
        )
        pieces = self.all.split([math.prod(shape) for shape in shapes])
        self.parts = [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]

    def measure(self, weights: Sequence[Tensor]) -> None:
        """Take the norms of the rows."""
        for rows, norm in zip(weights, self.parts, strict=True):
            torch.linalg.vector_norm(rows, dim=-1, keepdim=True, out=norm)
