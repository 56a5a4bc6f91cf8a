"""How far counted work has come: what a person sees, and what a log holds."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from mpdit import progress
from mpdit.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_log_has_a_line_every_fifteen_seconds_and_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("verify", 3000, done=1000) as verified:
        for _ in range(20):
            clock[0] += 2
            verified.advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "verify 1800/3000  50.0 images/s  24 s left",
        "verify 2600/3000  50.0 images/s  8 s left",
        "verify 3000/3000  50.0 images/s  0 s left",
    ]


def test_a_terminal_has_a_bar_with_count_rate_and_time_left_and_no_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Progress("reading", 2000, unit="MB", console=terminal) as read:
        read.advance(500)
    shown = terminal.file.getvalue()
    assert re.search(r"reading.*500/2,000.*[\d,.]+ MB/s.*left", shown)
    assert not capsys.readouterr().err
