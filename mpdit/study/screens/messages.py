"""The messages of a submission, as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mpdit.extensions import source_of
from mpdit.grid.plan import Plan
from mpdit.study.codesnapshot import present_place
from mpdit.study.cost import doubts, make_bill
from mpdit.study.hold import Changed
from mpdit.study.screens.codelines import code_lines
from mpdit.study.screens.plantable import LISTED, resource_lines
from mpdit.study.status import missing, tally
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission
from mpdit.text import Paint, count, shortlist


def doubtful_bill(part: Plan, results: Path) -> tuple[str, Sequence[str]]:
    """Why a person should confirm a submission ('' for a small bill), and the bill's lines."""
    study = StudyDir(results / part.study)
    if not doubts(make_bill(part.runs, study), study.path):
        return "", ()
    bill = make_bill(missing(study, part.runs), study)  # done runs cost nothing
    return doubts(bill, study.path), bill.lines()


def announcement(submission: Submission, paint: Paint) -> Iterator[str]:
    """Lines on the runs that were submitted, and on the runs that were left alone."""
    name = paint(submission.study.name, "bold")
    left = f"; left alone: {tally(submission.left, paint)}" if submission.left else ""
    if submission.started or submission.waiting:
        runs = count(len(submission.started), "run")
        place = f", {_place(submission)}" if submission.started else ""
        yield f"{name}: {runs} submitted{place}{left}"
        yield from _waiting(submission, paint)
        causes = Counter(filter(None, (status.cause_told for status in submission.started)))
        if causes:
            yield f"  before: {', '.join(f'{n:,} {cause}' for cause, n in causes.items())}"
    else:
        yield f"{name}: nothing to submit{left}"
    if submission.stage is not None:
        yield f"  {submission.stage.words}"
    yield from (paint(f"  sbatch: {line}", "yellow") for line in submission.said)
    yield from code_lines(submission)


def _waiting(submission: Submission, paint: Paint) -> Iterator[str]:
    """How many runs Slurm has no room for, and how they are submitted."""
    if not submission.waiting:
        return
    asked = len(submission.started) + len(submission.waiting)
    runs = f"{len(submission.waiting):,} of {count(asked, 'run')}"
    yield paint(f"  Slurm has no room for {runs} ({submission.limit}).", "yellow")
    itself = "by a small job of the study, " if submission.continues else ""
    followed = "by submit --wait, status --watch or the next submit"
    yield f"  They are submitted as room appears: {itself}{followed}."


def _place(submission: Submission) -> str:
    if not submission.arrays:
        return f"{submission.parallel} at a time on this machine"
    tasks = sum(len(array.tasks) for array in submission.arrays)
    jobs = shortlist([str(array.job) for array in submission.arrays], LISTED)
    what = count(len(submission.arrays), "Slurm job")
    return f"{count(tasks, 'task')} in {what} ({jobs})"


def held_lines(done: Changed, nothing: str, paint: Paint) -> Iterator[str]:
    """Lines on the runs that were held or released, and on the runs that were not."""
    yield f"now {tally(done.runs, paint)}" if done.runs else nothing
    if any(status.state == "planned" for status in done.runs):
        yield "  planned runs are in no queue: submit starts them"
    if done.shared:
        shared = shortlist(done.shared, LISTED)
        yield paint(f"  unchanged, because their jobs also have other runs: {shared}", "yellow")


def dry_run(part: Plan, results: Path, how: Execution) -> Iterator[str]:
    """Show the jobs or runs that would be submitted, without writing anything.

    Raises:
        ConfigError: when Slurm would reject a job.
    """
    study = StudyDir((results / part.study).absolute())
    runs = {run.name: run.resources for run in missing(study, part.runs)}
    if not runs:
        yield f"{part.study}: nothing to submit"
        return
    if how.cluster != "slurm":
        yield f"{part.study}: {count(len(runs), 'run')} on this machine"
        yield from (f"  {name}" for name in runs)
        return
    from mpdit.study.cluster.arrays import preview  # here: importing submitit is slow

    extensions = map(source_of, part.grid.extensions)
    code = present_place(study.path, extensions, how.live_code)
    batches = preview(study, runs, how.max_parallel, code)
    for number, (batch, script) in enumerate(batches, 1):
        tasks = count(len(batch.tasks), "task")
        yield f"# array {number} of {len(batches)}: {tasks}, {batch.parallel} at once"
        yield from (f"# {line}" for line in resource_lines([batch.resources]))
        yield script
        for index, names in enumerate(batch.tasks):
            yield f"# task {index}: {' '.join(names)}"
        yield ""
