"""The code of a submission's runs, as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mpdit.study import codesnapshot
from mpdit.study.status import RunStatus
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Submission
from mpdit.text import count, shortlist

LISTED = 3


def code_lines(submission: Submission) -> Iterator[str]:
    """Which runs execute which code, where it is not one code for all of them."""
    codes = submission.codes
    retried = {s.name for s in submission.started if s.has_begun or s.cause}
    groups: dict[tuple[str, str], list[str]] = {}
    for run, code in codes.given.items():
        before = codes.before.get(run, code)
        if code != codes.present:
            groups.setdefault((code, "resumed with the code of the first start"), []).append(run)
        elif before != code and run in retried:
            what = f"retried with the present code (before: {label(before)})"
            groups.setdefault((code, what), []).append(run)
    for status in submission.left:
        code = codesnapshot.read(submission.study.run(status.name).path)
        if code and code != codes.present:
            what = f"{status.word} with the code of the submission"
            groups.setdefault((code, what), []).append(status.name)
    live = not codesnapshot.is_snapshot(codes.present)
    if live:
        yield f"  code: {label(codes.present)}, as it is when a run starts"
    elif groups:
        yield f"  code: {label(codes.present)}; it has changed since these runs were submitted:"
    for (code, what), runs in groups.items():
        yield f"    {label(code)}: {count(len(runs), 'run')} {what} ({shortlist(runs, LISTED)})"


def differing(study: StudyDir, statuses: Iterable[RunStatus]) -> Iterator[str]:
    """Which runs have which code, where it is not one code for all of them."""
    groups: dict[str, list[str]] = {}
    for status in statuses:
        if code := codesnapshot.read(study.run(status.name).path):
            groups.setdefault(code, []).append(status.name)
    if len(groups) > 1:
        yield "code that differs:"
        for code, runs in groups.items():
            yield f"  {label(code)}: {count(len(runs), 'run')} ({shortlist(runs, LISTED)})"


def label(code: str) -> str:
    """A snapshot's hash, or the folder of live code."""
    return Path(code).name[:7] if codesnapshot.is_snapshot(code) else f"live from {code}"
