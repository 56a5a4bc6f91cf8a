"""A study's Slurm claims, brought in line with what has become of their tasks."""

from __future__ import annotations

import time
from dataclasses import replace

from mpdit import slurm
from mpdit.disk.lease import BusyError
from mpdit.disk.rundir import RunDir, append_row
from mpdit.errors import ConfigError
from mpdit.study.cluster.scheduler import Placement, Scheduler
from mpdit.study.runprocess import record_error
from mpdit.study.status import explain_end
from mpdit.study.studydir import Claim, StudyDir


def reconcile(study: StudyDir) -> None:
    """Let go of the claimed runs whose tasks are over. Call under the study's lock.

    A run is let go of (``{"finished": run}`` in its claim) when it is done, and when its task is
    gone, with the reason in its state.json where it could not say so itself. An array without a job
    id, whose submitter did not live to write it, gets ``{"array": index, "job": id}`` when Slurm
    knows its name. While Slurm does not answer, all is left as it is; so are the runs that another
    user has submitted, until they are done.
    """
    claims = [claim for claim in study.claims() if claim.cluster == "slurm"]
    try:
        for claim in claims:
            if claim.is_mine:
                _find_arrays(claim)
    except ConfigError:
        return
    claims = [claim for claim in study.claims() if claim.cluster == "slurm"]
    places = Scheduler().look(claims)
    for claim in claims:
        for name in claim.runs:
            run = study.run(name)
            if run.is_done():
                append_row(claim.file, {"finished": name})
            elif places[name].state == "gone":
                _record_end(run, places[name])
                append_row(claim.file, {"finished": name})


def _find_arrays(claim: Claim) -> None:
    """Find what was submitted without having been written down, by its name."""
    lost = {index: array for index, array in enumerate(claim.arrays) if array.job is None}
    jobs = slurm.find_jobs([array.name for array in lost.values()]) if lost else {}
    for index, array in lost.items():
        job = jobs.get(array.name)
        if job is not None and all(file.exists() for file in claim.pickles(array, job)):
            append_row(claim.file, {"array": index, "job": job})
            continue
        if job is not None:
            slurm.cancel([job])  # its tasks would wait for their arguments in vain
        for run in {run for runs in array.tasks for run in runs} & claim.runs:
            append_row(claim.file, {"finished": run})


def _record_end(run: RunDir, place: Placement) -> None:
    said = run.state()
    state, error = explain_end(said, place)
    if error is not None:
        record_error(run, error, 0)
    elif state == "planned" and said is not None and not said.stopped:
        try:
            with run.lease():
                run.write_state(replace(said, stopped="scancel", heartbeat=time.time()))
        except (BusyError, OSError):
            return
