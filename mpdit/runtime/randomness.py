"""Random numbers as a function of (seed, purpose, index), never of history.

So a resumed run draws what it would have drawn without the interruption, and sample i does not
depend on the samples before it.
"""

from __future__ import annotations

import hashlib

import torch


def generator(
    seed: int, purpose: str, index: int = 0, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return the generator of one (seed, purpose, index)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
