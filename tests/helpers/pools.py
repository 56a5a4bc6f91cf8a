"""Local pools that tests have started, and stop at their end."""

from __future__ import annotations

import subprocess

PATIENCE_S = 60
POOLS: list[subprocess.Popen[bytes]] = []


def stop_all() -> None:
    """Stop the pools that are left, and wait for them."""
    while POOLS:
        process = POOLS.pop()
        process.terminate()
        process.wait(PATIENCE_S)
