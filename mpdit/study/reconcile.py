"""A study's Slurm claims, brought in line with what has become of their tasks."""

from __future__ import annotations

from mpdit.study.folder import StudyDir
from mpdit.study.rundir import append_row


def reconcile(study: StudyDir) -> None:
    """Let go of the claimed runs whose tasks are over. Call under the study's lock.

    A run is let go of (``{"finished": run}`` in its claim) when it is done. An array without a job
    id, whose submitter did not live to write it, gets ``{"array": index, "job": id}`` when the
    queue knows its name.
    """
    for claim in study.claims():
        for name in claim.runs if claim.cluster == "slurm" else ():
            if study.run(name).is_done():
                append_row(claim.file, {"finished": name})
