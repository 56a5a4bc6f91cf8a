"""A notice when a submission has ended: a shell command of the user's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from mpdit.study.status import summary, survey
from mpdit.study.studydir import StudyDir


def notify(folder: Path, runs: Collection[str], command: str) -> None:
    """Run ``command`` in a shell, in the study's folder.

    MPDIT_STUDY is the folder, MPDIT_SUMMARY one line on what has become of the runs.
    """
    study = StudyDir(folder)
    said = f"{study.name}: {summary(survey(study, runs))}"
    subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "MPDIT_STUDY": str(folder), "MPDIT_SUMMARY": said},
        check=False,
    )
