"""Adam and AdamW step, and keep their state, as PyTorch's own do."""

from typing import Any

import pytest
import torch
from torch import Tensor

from mpdit.training.adam import Adam

BETAS = (0.9, 0.99)
SHAPES = ((3, 5), (7,), (2, 2))


def groups() -> list[dict[str, Any]]:
    random = torch.Generator().manual_seed(0)
    first, second, third = (
        torch.randn(shape, generator=random, requires_grad=True) for shape in SHAPES
    )
    return [
        {
            "params": [first.requires_grad_(), second.requires_grad_()],
            "lr": 0.1,
            "weight_decay": 0.2,
        },
        {"params": [third.requires_grad_()], "lr": 0.3, "weight_decay": 0.0},
    ]


def parameters(optimizer: Any) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def teach(optimizer: Any, step: int) -> None:
    """Gradients of a step; the second parameter has none in every other one."""
    random = torch.Generator().manual_seed(step)
    for index, parameter in enumerate(parameters(optimizer)):
        gradient = torch.randn(parameter.shape, generator=random)
        parameter.grad = None if index == 1 and step % 2 else gradient


def take(optimizer: Any, *steps: int) -> None:
    for step in steps:
        for group in optimizer.param_groups:
            group["lr"] *= 0.9
        teach(optimizer, step)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("decoupled", [False, True], ids=["Adam", "AdamW"])
def test_steps_and_state_are_the_bits_of_torchs_fused_optimizer(decoupled: bool) -> None:
    theirs = (torch.optim.AdamW if decoupled else torch.optim.Adam)(
        groups(), betas=BETAS, fused=True
    )
    ours = Adam(groups(), BETAS, decoupled=decoupled)
    for optimizer in (theirs, ours):
        take(optimizer, *range(6))
    for their_weights, our_weights in zip(parameters(theirs), parameters(ours), strict=True):
        assert torch.equal(their_weights, our_weights)
    for index, state in theirs.state_dict()["state"].items():
        for key, tensor in state.items():
            assert torch.equal(tensor, ours.state_dict()["state"][index][key]), (index, key)


@pytest.mark.parametrize("torchs", [False, True], ids=["own", "torch's"])
def test_a_loaded_state_goes_on_with_the_same_bits(torchs: bool) -> None:
    """Checkpoints of earlier versions have the state of torch's own."""
    whole = Adam(groups(), BETAS, decoupled=False)
    take(whole, *range(6))
    stopped: Any = (
        torch.optim.Adam(groups(), betas=BETAS, fused=True)
        if torchs
        else Adam(groups(), BETAS, decoupled=False)
    )
    take(stopped, *range(3))
    resumed = Adam(groups(), BETAS, decoupled=False)
    resumed.load_state_dict(stopped.state_dict())
    with torch.no_grad():
        for own, left in zip(parameters(resumed), parameters(stopped), strict=True):
            own.copy_(left)
    take(resumed, *range(3, 6))
    for expected, found in zip(parameters(whole), parameters(resumed), strict=True):
        assert torch.equal(expected, found)


def test_the_state_of_other_groups_is_refused() -> None:
    state = Adam(groups(), BETAS, decoupled=False).state_dict()
    with pytest.raises(ValueError, match="groups"):
        Adam(groups()[:1], BETAS, decoupled=False).load_state_dict(state)
