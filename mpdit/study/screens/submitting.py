"""Submit and follow runs in a terminal: the question, the progress, the result."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mpdit.errors import ConfigError
from mpdit.grid.plan import Plan
from mpdit.invocation import typed
from mpdit.study.advance import stage_on_disk
from mpdit.study.choosing import outside as runs_outside
from mpdit.study.screens.codelines import LISTED, changed_files
from mpdit.study.screens.dropped import active_lines, still_active
from mpdit.study.screens.messages import announcement, doubtful_bill
from mpdit.study.screens.plantable import grid_changes, unmatched
from mpdit.study.screens.program import command, resubmit
from mpdit.study.screens.stagelines import stage_lines
from mpdit.study.screens.watch import follow, outcome
from mpdit.study.status import RunStatus, survey
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, check_plan
from mpdit.study.submission import submit as start
from mpdit.text import painter, shortlist

if TYPE_CHECKING:  # numpy takes longer than a plan
    from mpdit.grid.stages import Stage


def agree(part: Plan, results: Path) -> None:
    """Ask on a terminal before a large submission; refuse it elsewhere."""
    check_plan(part, results)
    doubt, lines = doubtful_bill(part, results)
    if not doubt:
        return
    if not sys.stdin.isatty():
        raise ConfigError(f"{part.study} needs {doubt}. Add --yes to submit anyway.")
    print(*lines, sep="\n")
    if input(f"{part.study} needs {doubt}. Submit? [y/N] ").strip().lower() not in ("y", "yes"):
        raise ConfigError("not submitted")


def submit(
    part: Plan, results: Path, how: Execution, wait: bool, whole: Plan, **options: Any
) -> int:
    """Submit; then wait for the end, or print how to follow the runs.

    Ctrl-C stops the pool that was started here; Slurm's tasks continue.

    Returns:
        the exit status.
    """
    began = time.monotonic()
    if wait:
        signal.signal(signal.SIGTERM, _interrupt)
    submission = start(part, results, how, whole=whole, **options)
    if not wait:
        _announce(submission, whole)
        if submission.started or submission.waiting:
            study = submission.study
            for line in (f"{command('status', study)} --watch", command("cancel", study)):
                print(painter()(f"  {line}", "dim"))
        return 0
    interrupted = False
    try:
        _announce(submission, whole)
        names = None if submission.goes_on else submission.runs
        statuses = follow(submission.study, names, submission.is_working, sys.stdout)
    except KeyboardInterrupt:
        interrupted = True
        if submission.is_working():
            _stop(submission)
        statuses = survey(submission.study, submission.runs)
    stage = stage_on_disk(StudyDir(submission.study.path))
    _conclude(submission, statuses, time.monotonic() - began, stage)
    if interrupted:
        return 130
    return 0 if _is_over(statuses, stage) else 1


def _is_over(statuses: list[RunStatus], stage: Stage | None) -> bool:
    """Whether the runs are done; for a staged study, whether it needs no more runs."""
    if stage is not None:
        return stage.is_over
    return all(status.state == "done" for status in statuses)


def _announce(submission: Submission, whole: Plan) -> None:
    """Print the submitted runs, the other runs, and the changes of the grid."""
    study = submission.study
    changed = changes(study, whole, submission.new, submission.dropped)
    print(*announcement(submission, painter()), *unmatched(whole, painter()), *changed, sep="\n")
    again = resubmit(study, whole.grid.set_texts)
    if files := changed_files(submission, whole):
        print(
            f"  changed since the last submission: {shortlist(files, LISTED)}. A retry uses the "
            f"submitted copies; to use the new ones:  {again}"
        )
    if any(status.state == "planned" for status in submission.left):
        print(f"  to start or resume planned and interrupted runs:  {again}")
    if any(status.state == "held" for status in submission.left):
        print(f"  to start the held runs:  {command('release', study)}")


def changes(study: StudyDir, whole: Plan, new: Sequence[str], dropped: Sequence[str]) -> list[str]:
    """Lines on the runs that a grid gained and lost, and how to cancel lost runs that still run."""
    outside = runs_outside(study, whole)
    active = still_active(study, outside)
    lost = {status.name for status in active}
    return [
        *grid_changes(new, dropped, lost, painter()),
        *active_lines(study, active, outside, command("cancel", study), painter()),
    ]


def _conclude(
    submission: Submission, statuses: list[RunStatus], seconds: float, stage: Stage | None
) -> None:
    """Print the result of the runs and the next command."""
    study, paint = submission.study, painter()
    print("\n".join(outcome(study, statuses, seconds, paint)))
    for line in stage_lines(stage, statuses, command("retry", study), paint):
        print(f"  {line}")
    if any(status.is_active for status in statuses) and not submission.is_working():
        print("other runs continue; to stop them too:")
        print(f"  {command('cancel', study)}")
    elif any(status.state == "held" for status in statuses):
        print(f"to start the held runs:  {command('release', study)}")
    elif not _is_over(statuses, stage):
        print(f"to resume:  {typed(*sys.argv[1:])}")
    else:
        print(paint(f"next:  {command('report', study)}", "dim"))


def _interrupt(_number: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _stop(submission: Submission) -> None:
    """Stop the pool and wait for it; a second Ctrl-C ends the waiting."""
    print("\nstopping: the runs keep their state …", flush=True)
    submission.stop()
    try:
        while submission.is_working():
            time.sleep(0.1)
    except KeyboardInterrupt:
        print("the runs are still stopping in the background")
