"""Loss curves of running runs. Only the rows appended to metrics.jsonl are read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from analysis.loading import parse

BINS = 60
"""Points of a curve; each is the mean of the rows logged in one bin of the training steps."""


class LossCurves:
    """The training loss of runs, in bins over their training steps.

    Attributes:
        last: each run's last logged row: ``step``, ``loss``, ``images_per_s``.
    """

    def __init__(self) -> None:
        self.last: dict[str, dict[str, float]] = {}
        self._sums: dict[str, np.ndarray] = {}
        self._counts: dict[str, np.ndarray] = {}
        self._read: dict[str, tuple[int, int]] = {}  # inode, bytes that were read

    def read(self, study: Path, steps: Mapping[str, int]) -> set[str]:
        """Read the rows appended since the last call.

        Args:
            steps: run → its training steps.

        Returns:
            the runs with new rows. If a run's file was replaced by a resume, its curve is read
            again from the start.
        """
        texts: dict[str, bytes] = {}
        for run in steps:
            with suppress(OSError):
                texts |= self._appended(run, study / run / parse.METRICS.name)
        pieces = zip(texts, parse.METRICS.parse(list(texts.values())), strict=True)
        for run, piece in pieces:
            if piece is None or not piece.rows:  # damaged rows are skipped
                continue
            rows = piece.table.slice(piece.start, piece.rows)
            columns = {key: rows[key].to_numpy() for key in ("step", "loss", "images_per_s")}
            self._add(run, columns["step"], columns["loss"], max(1, steps[run]))
            self.last[run] = {key: float(values[-1]) for key, values in columns.items()}
        return set(texts)

    def _appended(self, run: str, file: Path) -> dict[str, bytes]:
        """Return the run's new complete rows, if any."""
        found = file.stat()
        inode, begin = self._read.get(run, (found.st_ino, 0))
        if inode != found.st_ino or found.st_size < begin:
            begin = 0
            for known in (self._sums, self._counts, self.last):
                known.pop(run, None)
        if found.st_size == begin:
            return {}
        with file.open("rb") as handle:
            inode = os.fstat(handle.fileno()).st_ino
            handle.seek(begin)
            text = handle.read()
        text = text[: text.rfind(b"\n") + 1]
        self._read[run] = inode, begin + len(text)
        return {run: text} if text else {}

    def _add(self, run: str, step: np.ndarray, loss: np.ndarray, steps: int) -> None:
        is_finite = np.isfinite(loss)
        at = np.clip((step[is_finite] - 1) * BINS // steps, 0, BINS - 1)
        for known, weights in ((self._sums, loss[is_finite]), (self._counts, None)):
            found = np.bincount(at, weights, BINS).astype(float)
            known[run] = known.get(run, 0) + found

    def mean(self, runs: Sequence[str]) -> list[float | None]:
        """Return the mean curve of runs: BINS numbers, None for a bin without rows."""
        known = [run for run in runs if run in self._sums]
        if not known:
            return []
        with np.errstate(invalid="ignore"):
            curves = np.array([self._sums[run] / self._counts[run] for run in known])
        there = np.isfinite(curves)
        counts = there.sum(axis=0)
        sums = np.where(there, curves, 0).sum(axis=0)
        return [float(f"{s / n:.4g}") if n else None for s, n in zip(sums, counts, strict=True)]
