"""Each of the model's named options is its equation, and keeps magnitudes where it says so."""

import pytest
import torch
from torch import nn

from mpdit.model.layers import Attention
from mpdit.model.norm import norm_of
from mpdit.modelconfig import ModelConfig

TINY = {"depth": 2, "width": 16, "heads": 2, "patch_size": 4}


def config(**options) -> ModelConfig:
    return ModelConfig.model_validate({**TINY, **options})


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def drawn(module: nn.Module) -> nn.Module:
    """The module in float64, all of its parameters at random."""
    for seed, parameter in enumerate(module.double().parameters()):
        parameter.data = random(*parameter.shape, seed=seed)
    return module


def gradients(outputs: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return list(torch.autograd.grad((outputs * random(*outputs.shape, seed=9)).sum(), inputs))


def by_torch(kind: str, x: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """The norm by PyTorch's own module, or by its equation."""
    width = x.shape[-1]
    if kind == "dyt":
        alpha, gamma, beta = parameters
        return torch.stack([gamma * torch.tanh(alpha * row) + beta for row in x.unbind()])
    modules = {"none": nn.Identity, "layer": nn.LayerNorm, "rms": nn.RMSNorm}
    normed: torch.Tensor = modules[kind](width, eps=1e-6, elementwise_affine=False)(x)
    return normed


@pytest.mark.parametrize("kind", ["layer", "rms", "none", "dyt"])
def test_a_norm_is_its_equation_and_so_are_its_gradients(kind):
    norm = drawn(norm_of(config(norm=kind)))
    x = (3 * random(5, 16) + 1).requires_grad_()
    inputs = [x, *norm.parameters()]
    ours, theirs = norm(x), by_torch(kind, x, inputs[1:])
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    for one, other in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_every_norm_is_at_first_without_an_effect_of_its_parameters():
    x = random(5, 16)
    dyt = norm_of(config(norm="dyt")).double()
    torch.testing.assert_close(dyt(x), torch.tanh(x / 2))
    attention = Attention(config(qk_norm="rms"))
    assert (attention.q_norm.gain == 1).all()
    assert (attention.k_norm.gain == 1).all()


@pytest.mark.parametrize("kind", ["none", "cosine", "rms"])
def test_attention_normalizes_q_and_k_of_each_head_as_by_hand(kind):
    attention = drawn(Attention(config(qk_norm=kind)))
    x = random(3, 5, 16, seed=5)
    outputs = torch.zeros(3, 5, 16, dtype=torch.float64)
    for image in range(3):
        q, k, v = (x[image] @ rows.T for rows in attention.qkv.weight.split(16))
        for head in (slice(0, 8), slice(8, 16)):
            of_q, of_k = q[:, head], k[:, head]
            if kind == "cosine":
                of_q, of_k = (8**0.5 * y / (y.norm(dim=-1)[:, None] + 1e-4) for y in (of_q, of_k))
            if kind == "rms":
                of_q, of_k = (
                    y / (y.square().mean(-1)[:, None] + 1e-6).sqrt() for y in (of_q, of_k)
                )
                of_q, of_k = of_q * attention.q_norm.gain, of_k * attention.k_norm.gain
            outputs[image, :, head] = (of_q @ of_k.T / 8**0.5).softmax(-1) @ v[:, head]
    torch.testing.assert_close(attention(x), outputs @ attention.out.weight.T)
