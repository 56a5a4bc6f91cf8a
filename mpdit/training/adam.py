"""Adam and AdamW by PyTorch's fused kernel, without `torch.optim`.

The first optimizer of `torch.optim` imports PyTorch's compiler, a second or more of a process's
start, and its bookkeeping costs a small model as much as the kernel itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

EPS = 1e-8
MOMENTS = ("exp_avg", "exp_avg_sq")


class Adam:
    """Adam (Kingma & Ba, arXiv:1412.6980), or AdamW (Loshchilov & Hutter, arXiv:1711.05101).

    Numbers and state are the same as of `torch.optim.Adam` and `AdamW` with ``fused=True``.

    Args:
        groups: each with ``params``, ``lr`` and ``weight_decay``.
        betas: the decay rates of the two moments.
        decoupled: whether weights decay by themselves (AdamW) or through the gradient (Adam).

    Attributes:
        param_groups: as `torch.optim.Optimizer` has them; ``lr`` may be changed between steps.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], betas: tuple[float, float], *, decoupled: bool
    ) -> None:
        self.param_groups = [{**group, "betas": betas, "eps": EPS} for group in groups]
        self.kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
        self.parameters: list[Tensor] = [p for group in self.param_groups for p in group["params"]]
        self.state: list[dict[str, Tensor]] = [
            {
                "step": torch.zeros((), device=parameter.device),
                **{moment: torch.zeros_like(parameter) for moment in MOMENTS},
            }
            for parameter in self.parameters
        ]

    @torch.no_grad()
    def step(self) -> None:
        """Step all parameters that have a gradient."""
        first = 0
        for group in self.param_groups:
            states = self.state[first : first + len(group["params"])]
            first += len(states)
            pairs = zip(group["params"], states, strict=True)
            taught = [
                (parameter, state) for parameter, state in pairs if parameter.grad is not None
            ]
            if not taught:
                continue
            steps = [state["step"] for _, state in taught]
            torch._foreach_add_(steps, 1)
            self.kernel(
                [parameter for parameter, _ in taught],
                [parameter.grad for parameter, _ in taught],
                [state["exp_avg"] for _, state in taught],
                [state["exp_avg_sq"] for _, state in taught],
                [],
                steps,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The state in the form of `torch.optim.Optimizer.state_dict`."""
        indices = iter(range(len(self.parameters)))
        groups = [
            {**group, "params": [next(indices) for _ in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": dict(enumerate(self.state)), "param_groups": groups}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the moments and groups; parameters that `torch.optim` never stepped have no moments.

        Raises:
            ValueError: when the state is that of other groups.
        """
        sizes = [len(group["params"]) for group in state["param_groups"]]
        if sizes != [len(group["params"]) for group in self.param_groups]:
            raise ValueError(f"the state has groups of {sizes} parameters")
        for group, stored in zip(self.param_groups, state["param_groups"], strict=True):
            group |= {key: stored[key] for key in ("lr", "betas", "eps", "weight_decay")}
        for index, own in enumerate(self.state):
            for key, tensor in own.items():
                stored = state["state"].get(index)
                tensor.zero_() if stored is None else tensor.copy_(torch.as_tensor(stored[key]))
