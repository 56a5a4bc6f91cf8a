"""The rows that training writes: which rows exist after a resume, and which are missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mpdit.disk.files import keep_rows, read_rows


def resume_rows(file: Path, step: int) -> list[int]:
    """Drop the rows past ``step``, and return the steps of the remaining rows.

    A negative step drops them all.
    """
    rows = [row for row in read_rows(file) if isinstance(row.get("step"), int)]
    kept = [row for row in rows if row["step"] <= step]
    if file.exists():
        keep_rows(file, kept)
    return [row["step"] for row in kept]


def missing_rows(name: str, steps: Sequence[int], written: Sequence[int]) -> str | None:
    """Report which rows of a file are missing; None when none is.

    Args:
        steps: the steps of the existing rows.
        written: the steps of the rows that had been written when the checkpoint was saved.
    """
    missing = Counter(written) - Counter(steps)
    if not missing:
        return None
    first, last = min(missing), max(missing)
    where = f"step {first}" if first == last else f"steps {first} to {last}"
    count = f"{missing.total()} of its {len(written)} rows up to the checkpoint"
    return f"{name}: {count} are missing, of {where}"
