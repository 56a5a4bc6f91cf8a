"""The notice at the end of a submission: a shell command of the user's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection
from pathlib import Path

from mpdit.study import codesnapshot
from mpdit.study.status import summary, survey
from mpdit.study.studydir import StudyDir


def notify(folder: Path, runs: Collection[str], command: str) -> None:
    """Run ``command`` in a shell, in the study's folder.

    MPDIT_STUDY is the folder, MPDIT_SUMMARY one line that counts the runs' states.
    """
    study = StudyDir(folder)
    counted = f"{study.name}: {summary(survey(study, runs))}"
    more = {"MPDIT_STUDY": str(folder), "MPDIT_SUMMARY": counted}
    environment = {**codesnapshot.without(os.environ), **more}
    subprocess.run(["sh", "-c", command], cwd=folder, env=environment, check=False)
