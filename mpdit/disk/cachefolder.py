"""The folder for computed files that can be deleted without loss. No torch."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return ``$MPDIT_CACHE``, or ``~/.cache/mpdit``; it may not exist yet."""
    return Path(os.environ.get("MPDIT_CACHE") or Path("~/.cache/mpdit").expanduser())
