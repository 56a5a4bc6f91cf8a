"""Update a study's Slurm claims from the state of their tasks."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace

from mpdit import slurm
from mpdit.disk.files import append_row
from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import RunDir
from mpdit.errors import ConfigError
from mpdit.study.claims import Claim
from mpdit.study.cluster.scheduler import Placement, Scheduler
from mpdit.study.runprocess import record_error
from mpdit.study.status import explain_end
from mpdit.study.studydir import StudyDir


def reconcile(study: StudyDir) -> None:
    """Release the claimed runs whose tasks have ended. Call under the study's lock.

    A run is released (``{"finished": run}`` in its claim) when it is done or its task is gone. The
    reason goes to state.json, unless the run has written it. An array whose submitter died before
    it wrote the job id gets ``{"array": index, "job": id}`` when Slurm knows its name. Nothing
    changes while Slurm does not answer, and another user's runs are released only when done.
    """
    try:
        for claim in study.claims():
            if claim.cluster == "slurm" and claim.is_mine:
                _find_arrays(claim)
    except ConfigError:
        return
    claims = [claim for claim in study.claims() if claim.cluster == "slurm"]
    places = Scheduler().look(claims)
    for claim in claims:
        for name in claim.runs:
            run, gone = study.run(name), places[name].state == "gone"
            done = run.is_done()
            if gone and not done:
                _record_end(run, places[name])
            if gone or done:
                with suppress(PermissionError):  # another user's claim: that user releases it
                    append_row(claim.file, {"finished": name})


def _find_arrays(claim: Claim) -> None:
    """Look up arrays without a job id by their names in Slurm."""
    lost = {array.index: array for array in claim.arrays if array.job is None}
    jobs = slurm.find_jobs([array.name for array in lost.values()]) if lost else {}
    for index, array in lost.items():
        job = jobs.get(array.name)
        if job is not None and all(file.exists() for file in claim.pickles(array, job)):
            append_row(claim.file, {"array": index, "job": job})
            continue
        if job is not None:
            slurm.cancel([job])  # its tasks would never find their arguments
        for run in {run for runs in array.tasks for run in runs} & claim.runs:
            append_row(claim.file, {"finished": run})


def _record_end(run: RunDir, place: Placement) -> None:
    """Write to state.json why a run's task is gone."""
    said = run.state()
    state, error = explain_end(said, place)
    begun = said is not None and said.heartbeat >= place.since
    if not begun and state == "lost":  # else the run would seem never to have been submitted
        error = "its job is gone, and Slurm keeps no record of it"
    if error is not None:
        record_error(run, error, place.since)
    elif state == "planned" and said is not None and not said.stopped:
        with suppress(BusyError, ConfigError, OSError), run.lease():
            run.write_state(replace(said, stopped="scancel", heartbeat=time.time()))
