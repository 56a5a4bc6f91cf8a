"""The code of a submission's runs, as lines of text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from mpdit.grid.plan import Plan
from mpdit.study import codesnapshot
from mpdit.study.status import RunStatus
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Submission
from mpdit.text import count, shortlist

LISTED = 3


def code_lines(submission: Submission) -> Iterator[str]:
    """Lines on which runs execute which code; none where all execute the same code."""
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


def changed_files(submission: Submission, plan: Plan) -> list[str]:
    """The grid's file and its extensions, where submitted runs execute an older content of them.

    A retry uses the study's own copies, not the user's files.
    """
    names = submission.study.places(plan.runs)
    started = {status.name for status in submission.started}
    runs = [run for run in plan.runs if names.get(run.id) in started]
    used = {one.name: one.sha256 for run in runs for one in run.config.extensions}
    grid = Path(submission.study.grid_name)
    listed = plan.grid.source.tree.get("extensions", ())
    files = [grid.parent / name for name in listed if Path(name).stem in used]
    found = [file for file in files if file.is_file() and _digest(file) != used[file.stem]]
    text = grid.read_bytes().decode("utf-8-sig", "replace") if runs and grid.is_file() else ""
    if text not in ("", plan.grid.text):
        found.append(grid)
    # typed elsewhere, the same name may be another study's grid
    is_its_own = re.search(rf"^study:\s*['\"]?{re.escape(plan.study)}\b", text, re.MULTILINE)
    return list(map(str, found)) if is_its_own else []


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def differing(study: StudyDir, statuses: Iterable[RunStatus]) -> Iterator[str]:
    """Lines on which runs have which code; none where all have the same code."""
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
