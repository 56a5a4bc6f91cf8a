"""The optimizer: Adam, AdamW or Muon beside them, with a rate for each group of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mpdit.model import DiT
from mpdit.model.layers import MLP, Attention, MPEmbedding, MPLinear
from mpdit.model.modulation import Modulation
from mpdit.trainconfig import TrainConfig
from mpdit.training.adam import Adam


def make_optimizer(model: DiT, train: TrainConfig) -> Adam | MuonAndAdam:
    """Adam; AdamW where there is weight decay; Muon for the blocks' matrices."""
    groups = parameter_groups(model, train)
    if train.optimizer == "muon":
        return MuonAndAdam(model, groups, train)
    return _adam(groups, train)


def parameter_groups(model: DiT, train: TrainConfig) -> list[dict[str, Any]]:
    """Adam's groups: the rest, magnitude-preserving (weight-normalized) parameters, and gains.

    Gains with the rest's rate are in the rest's group, as in checkpoints of version 0.1. A group is
    split where matrices or embeddings have their own rate, or matrices have weight decay.
    """
    preserving = model.mp_parameters()
    gains = model.gains() if train.gain_learning_rate != train.learning_rate else []
    apart = {id(parameter) for parameter in (*preserving, *gains)}
    others = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    kinds = {
        id(m.weight): type(m) for m in model.modules() if isinstance(m, MPLinear | MPEmbedding)
    }
    groups: dict[tuple[str, float, float], list[nn.Parameter]] = {}
    for name, parameters, rate in (
        ("others", others, train.learning_rate),
        ("preserving", preserving, train.mp_learning_rate),
        ("gains", gains, train.gain_learning_rate),
    ):
        assert rate is not None  # the config derives it
        for parameter in parameters:
            own, decay = None, 0.0
            if kinds.get(id(parameter)) is MPLinear:
                own, decay = train.matrix_learning_rate, train.weight_decay
            elif kinds.get(id(parameter)) is MPEmbedding:
                own = train.embedding_learning_rate
            groups.setdefault((name, own or rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (_, rate, decay), parameters in groups.items()
    ]


def _adam(groups: list[dict[str, Any]], train: TrainConfig) -> Adam:
    return Adam(groups, train.adam_betas, decoupled=bool(train.weight_decay))


class MuonAndAdam:
    """Muon (Jordan et al., 2024) for the matrices of the blocks, Adam or AdamW for the others.

    Muon's update is orthogonal. q, k and v, SwiGLU's first two maps and the modulation's parts
    count as separate matrices, because they are separate maps. The update is scaled to the
    magnitude of Adam's (Liu et al., arXiv:2502.16982, eq. 4), so that rates and weight decay mean
    the same for both.
    """

    def __init__(self, model: DiT, groups: list[dict[str, Any]], train: TrainConfig) -> None:
        rows = dict(_rows_of_matrices(model))
        self.pieces: list[tuple[Tensor, nn.Parameter, slice]] = []
        of_muon: list[dict[str, Any]] = []
        of_adam: list[dict[str, Any]] = []
        for group in groups:
            hidden = [parameter for parameter in group["params"] if parameter in rows]
            pieces = [piece for parameter in hidden for piece in _cut(parameter, rows[parameter])]
            self.pieces += pieces
            others = [parameter for parameter in group["params"] if parameter not in rows]
            of_muon += [{**group, "params": [piece for piece, _, _ in pieces]}] if pieces else []
            of_adam += [{**group, "params": others}] if others else []
        self.adam = _adam(of_adam, train)
        self.muon = torch.optim.Muon(of_muon, adjust_lr_fn="match_rms_adamw")

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.adam.param_groups + self.muon.param_groups

    def step(self) -> None:
        for piece, parameter, rows in self.pieces:
            piece.grad = None if parameter.grad is None else parameter.grad[rows]
        self.adam.step()
        self.muon.step()

    def zero_grad(self) -> None:
        self.adam.zero_grad()
        for piece, parameter, _ in self.pieces:
            piece.grad = parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {**self.adam.state_dict(), "muon": self.muon.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict({key: state[key] for key in ("state", "param_groups")})
        self.muon.load_state_dict(state["muon"])


def _rows_of_matrices(model: DiT) -> Iterable[tuple[nn.Parameter, list[int]]]:
    """Yield the blocks' parameters that hold matrices, each with the rows of its matrices."""
    for module in model.blocks.modules():
        if isinstance(module, MPLinear):
            yield module.weight, [len(module.weight)]
    for module in model.blocks.modules():
        if isinstance(module, Attention):
            yield module.qkv.weight, [len(module.qkv.weight) // 3] * 3
        elif isinstance(module, MLP) and module.gated:
            yield module.first.weight, [len(module.first.weight) // 2] * 2
        elif isinstance(module, Modulation):
            linear = module.linear or model.modulation  # which all blocks share
            assert linear is not None
            yield linear.weight, [size for size in module.sizes if size]
            if module.unit is not None:
                yield module.unit.weight, [size for size in module.units if size]


def _cut(parameter: nn.Parameter, sizes: list[int]) -> Iterable[tuple[Tensor, nn.Parameter, slice]]:
    """Yield the matrices in a parameter, which share its memory, with their rows."""
    first = 0
    for size in sizes:
        rows = slice(first, first + size)
        yield parameter.detach()[rows].requires_grad_(), parameter, rows
        first += size
