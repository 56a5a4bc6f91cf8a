"""The stage of a study as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mpdit.study.status import RunStatus
from mpdit.text import Paint, count

if TYPE_CHECKING:
    from mpdit.grid.stages import Stage


def stage_lines(
    stage: Stage | None, statuses: Sequence[RunStatus], retry: str, paint: Paint
) -> Iterator[str]:
    """Where a staged study stands, and the runs that hold it up; nothing without stages.

    Args:
        retry: the command that runs them again.
    """
    if stage is None:
        return
    yield stage.words
    pending = {run.id for run in stage.pending}
    ended = [s for s in statuses if s.id in pending and s.state in ("failed", "lost")]
    if ended:
        yield paint(
            f"  held up by {count(len(ended), 'run')} that failed or was lost: {retry}", "red"
        )
