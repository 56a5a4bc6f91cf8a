"""Sigmoid attention, as a flag: every token is weighted by itself (Ramapuram et al., 2024)."""

import math

from mpdit.catalogue import flag


def attend(q, k, v):
    """σ(q·k / √d − log T) v: the bias makes the weights of T tokens sum to about one at first.

    q, k, v and the result are (batch, heads, tokens T, channels d).
    """
    logits = q @ k.mT / math.sqrt(q.shape[-1])
    return (logits - math.log(k.shape[-2])).sigmoid() @ v


@flag(
    "sigmoid_attention",
    code="sig",
    does="attention weights by a sigmoid instead of softmax",
    source="arXiv:2409.04431",
)
def use_sigmoid(model):
    for block in model.blocks:
        block.attention.attend = attend
