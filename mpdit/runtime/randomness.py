"""Randomness as a function of (seed, purpose, index), never of history.

So a run that resumes anywhere draws what it would have drawn, and sample i is the same sample
whatever was sampled before it.
"""

from __future__ import annotations

import hashlib

import torch


def generator(
    seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A generator of its own for each (seed, purpose, index)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
