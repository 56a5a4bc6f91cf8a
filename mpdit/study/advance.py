"""Bring a staged study to its next stage."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from mpdit.study.staging import read_stage, unsubmitted
from mpdit.study.studydir import StudyDir
from mpdit.study.submission import Execution, Submission, stored_plan, submit

if TYPE_CHECKING:
    from mpdit.grid.stages import Stage


def stage_on_disk(study: StudyDir) -> Stage | None:
    """The stage of a study as it was last submitted; None where it has no stages.

    Raises:
        ConfigError: as `submission.stored_plan`.
    """
    return read_stage(stored_plan(study), study) if study.is_staged else None


def advance(study: StudyDir, how: Execution) -> Submission | None:
    """Submit the runs that the results so far require.

    Returns:
        None where the study has no stages.

    Raises:
        ConfigError: as `submission.submit`.
    """
    plan = stored_plan(study)
    if not plan.grid.is_staged:
        return None
    return submit(
        plan,
        study.path.parent,
        how,
        grid_name=study.grid_name,
        states=["planned"],
        adjust=partial(unsubmitted, study=study),
    )
