"""Where what was computed once is kept: deleting it costs time only. No torch is imported here."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """``$MPDIT_CACHE``, or ``~/.cache/mpdit``; it may not exist yet."""
    return Path(os.environ.get("MPDIT_CACHE") or Path("~/.cache/mpdit").expanduser())
