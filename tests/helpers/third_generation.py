"""The official third generation (branch final), written plainly from its formulas and under its own
names: functions of a dictionary of weights, with nothing of ours."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = dict[str, Tensor]
PLAIN = ("scale_net.net.1.weight", "blend.1.weight", "gate_net.net.1.weight")
"""The maps that are not normalized: angles and blends."""


def normalize(x: Tensor) -> Tensor:
    return x * math.sqrt(x.shape[-1]) / (x.norm(dim=-1, keepdim=True) + 1e-4)


def mp_silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x) / 0.596


def mp_sum(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    return ((1 - t) * a + t * b) / ((1 - t) ** 2 + t**2).sqrt()


def single(t: float) -> Tensor:
    """A number in float32, as the official code has its constants."""
    return torch.tensor(t, dtype=torch.float32)


def turn(x: Tensor, angle: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), dim=-1)


@dataclass
class ThirdGeneration:
    """The model: sizes as in its arguments, ``weights`` and ``buffers`` under its names."""

    arguments: dict[str, float]
    weights: Weights
    buffers: Weights

    def linear(self, name: str, x: Tensor) -> Tensor:
        w = self.weights[name]
        if not name.endswith(PLAIN):
            w = normalize(w) / math.sqrt(w.shape[-1])
        return x @ w.T

    def force(self) -> None:
        """What its training forward does to the stored weights first."""
        with torch.no_grad():
            for name, w in self.weights.items():
                if not name.endswith(PLAIN):
                    w.copy_(normalize(w))

    def modulated(self, name: str, x: Tensor, c: Tensor) -> Tensor:
        c = mp_silu(c)[:, None]
        angle = self.linear(f"{name}.scale_net.net.1.weight", c)
        shift = self.linear(f"{name}.shift_net.net.1.weight", c)
        blend = torch.sigmoid(self.linear(f"{name}.shift_net.blend.1.weight", c) - 2.1972)
        return mp_sum(turn(x, angle), shift, blend)

    def attention(self, name: str, x: Tensor) -> Tensor:
        (B, T, D), heads = x.shape, int(self.arguments["num_heads"])
        qkv = self.linear(f"{name}.qkv_weight", x).view(B, T, 3, heads, D // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / math.sqrt(D // heads)).softmax(-1)
        joined = (weights @ v).transpose(1, 2).reshape(B, T, D)
        return normalize(self.linear(f"{name}.out_proj.weight", joined))

    def mlp(self, name: str, x: Tensor) -> Tensor:
        return self.linear(f"{name}.2.weight", mp_silu(self.linear(f"{name}.0.weight", x)))

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        (B, C, side, _), P = x.shape, int(self.arguments["patch_size"])
        n, half = side // P, single(0.5)
        patches = x.view(B, C, n, P, n, P).permute(0, 2, 4, 3, 5, 1).reshape(B, n * n, P * P * C)
        ones = torch.ones(B, n * n, 1, dtype=x.dtype)
        h = self.linear("x_embedder.weight", torch.cat((patches, ones), dim=-1))
        h = mp_sum(h, self.buffers["pos_embed"], half)
        scale, shift = (self.buffers[f"t_embedder.embedding.{name}"] for name in ("scale", "shift"))
        waves = (t[:, None] * scale + shift).cos()
        waves = (math.sqrt(2) * waves.to(torch.float32)).to(x.dtype)
        labels = normalize(self.weights["y_embedder.embedding_table.weight"][y])
        c = mp_sum(self.mlp("t_embedder.mlp", waves), labels, half)
        join = single(self.arguments.get("attn_scale", 0.3))
        for i in range(int(self.arguments["depth"])):
            for part, sublayer in (("msa", "attn"), ("mlp", "mlp.net")):
                block = f"blocks.{i}"
                into = self.modulated(f"{block}.mod_{part}", h, c)
                apply = self.attention if part == "msa" else self.mlp
                out = apply(f"{block}.{sublayer}", into)
                angle = self.linear(
                    f"{block}.mod_{part}.gate_net.net.1.weight", mp_silu(c)[:, None]
                )
                h = mp_sum(h, turn(out, angle), join)
        h = self.linear("final_layer.linear.weight", self.modulated("final_layer.modulation", h, c))
        return h.view(B, n, n, P, P, 2 * C).permute(0, 5, 1, 3, 2, 4).reshape(B, 2 * C, side, side)
