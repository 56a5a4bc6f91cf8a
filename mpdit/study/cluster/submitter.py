"""Submit batches of runs to Slurm, as many tasks as it accepts.

Where a limit on the number of jobs is reached, Slurm refuses a whole array. The array is then
halved until a part is accepted. This finds the room on any cluster, for any kind of limit.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

from submitit.core.utils import DelayedSubmission

from mpdit import slurm
from mpdit.disk.files import append_row, make_folder
from mpdit.errors import ConfigError
from mpdit.grid.resources import Resources
from mpdit.study import waiting
from mpdit.study.claims import JobArray
from mpdit.study.cluster.arrays import (
    UNLIMITED_TIMEOUTS,
    Batch,
    blamed,
    make_batches,
    new_job_name,
    notice_batch,
    script,
)
from mpdit.study.cluster.job import Job
from mpdit.study.studydir import NOTICE, StudyDir
from mpdit.text import count


class Submitter:
    """One submission to Slurm. Create and use it under the study's lock.

    Its claim holds the runs of each array from before sbatch is called until they end. If sbatch
    fails without Slurm's answer, the array stays claimed until `reconcile` finds it or not.

    Attributes:
        command: executes one run, given its folder as last argument.
        code: the folder that the jobs import mpdit from; None for the installed package.
        small: the work of the small job that continues the study. `submit` submits it where runs
            have to wait.
        continues: whether a small job continues the study, this submission's or an earlier one's.
        small_name: the name of the small job of this submission, '' without one.
        jobs: Slurm's ids of the arrays that it has accepted.
        said: other lines that sbatch printed.
        limit: Slurm's name of the limit that it has reached, '' where all runs were accepted.
    """

    def __init__(
        self,
        study: StudyDir,
        command: Sequence[str],
        code: Path | None = None,
        small: Callable[[], None] | None = None,
    ) -> None:
        self.command = command
        self.code = code
        self.small = small
        self.continues = False
        self.small_name = self._small_job = ""
        self.study = study
        self.job_name = new_job_name(study)
        self.file, held = study.new_claim("slurm", [], job_name=self.job_name)
        held.close()
        self.jobs: list[str] = []
        self.said: list[str] = []
        self.limit = ""
        self._arrays = 0

    def submit(
        self,
        resources: Mapping[str, Resources],
        largest: int,
        max_parallel: int | None = None,
        *,
        little_room: bool = False,
    ) -> Iterator[JobArray]:
        """Submit runs, one sbatch an array where Slurm has room for all.

        Args:
            resources, largest: as `arrays.check` returns them.
            max_parallel: as in `make_batches`.
            little_room: begin with single tasks, as where Slurm had no room before.

        Yields:
            each array that Slurm has accepted. Runs in none of them have to wait.

        Raises:
            ConfigError: with sbatch's message when it fails otherwise; earlier arrays stay
                submitted.
        """
        full: set[tuple[str | None, ...]] = set()  # where a limit has been reached
        jobs: list[list[str]] = []
        broken: set[int] = set()  # batches that were not accepted whole
        for index, batch in enumerate(make_batches(resources, largest, max_parallel)):
            jobs.append([])
            own = batch.resources
            limited = (own.partition, own.account, own.qos)
            if limited in full or batch.after in broken:
                broken.add(index)
                continue
            after = [] if batch.after is None else jobs[batch.after]
            left, size = batch.tasks, 1 if little_room else len(batch.tasks)
            growing = little_room
            while left:
                part = left[:size]
                try:
                    array = self._submit(
                        replace(batch, tasks=part, parallel=min(batch.parallel, len(part))), after
                    )
                except slurm.NoRoomError as error:
                    if not self.limit and self.small is not None and not self.continues:
                        with suppress(ConfigError):  # before parts of the array take all room
                            self.follow_up(own, [], waiting.AGAIN)
                    self.limit = error.limit
                    full.add(limited)
                    if len(part) == 1 and not self._make_room():
                        break
                    growing, size = False, max(1, len(part) // 2)
                    continue
                yield array
                jobs[index].append(str(array.job))
                left = left[len(part) :]
                if batch.parallel < len(batch.tasks):
                    break  # a second array would let more runs than the limit run at once
                size = 2 * size if growing else max(1, size // 2)
            if left:
                broken.add(index)

    def _make_room(self) -> bool:
        """Cancel the small job where it takes the only room: it would wait for runs without room.

        Under `MaxJobCount` it stays, as that limit counts a cancelled job for some minutes.

        Returns:
            whether it was cancelled.
        """
        others = (claim for claim in self.study.claims() if claim.cluster == "slurm")
        if not self.small_name or self.limit == "MaxJobCount" or any(c.arrays for c in others):
            return False
        slurm.cancel([self._small_job])
        self.small_name, self.continues = "", False
        return True

    def _submit(self, batch: Batch, after: Sequence[str]) -> JobArray:
        """Submit one array."""
        index = self._arrays
        self._arrays += 1
        append_row(self.file, {"array": index, "at": time.time(), "tasks": batch.tasks})
        name, claim = f"{self.job_name}-{index}", self.file.with_suffix("")
        packed = batch.resources.runs_per_job
        work = Job(claim, self.command, packed, batch.minutes, batch.stop_s)
        try:
            job = self._sbatch(batch, name, claim, after, work, *batch.tasks)
        except slurm.NoRoomError:
            append_row(self.file, {"array": index, "job": None})
            raise
        except ConfigError as error:
            if isinstance(error, slurm.RefusedError):
                append_row(self.file, {"array": index, "job": None})
            done = count(len(self.jobs), "array")
            there = f"{done} submitted before that; " if self.jobs else ""
            said = blamed(str(error), batch.resources)
            raise ConfigError(f"{said} ({there}submit again to add the missing runs)") from None
        append_row(self.file, {"array": index, "job": job})
        self.jobs.append(job)
        return JobArray(name, batch.tasks, job)

    def follow_up(self, resources: Resources, after: Sequence[str], begin: str = "") -> None:
        """Submit the small job, with the partition of ``resources``.

        Args:
            after: the jobs that it waits for.
            begin: the time before which it does not start, as for sbatch.

        Raises:
            ConfigError: when Slurm does not accept it.
        """
        batch = notice_batch(resources)
        if begin:
            delayed = batch.resources.model_copy(
                update={"extra": batch.resources.extra | {"begin": begin}}
            )
            batch = replace(batch, resources=delayed)
        folder = self.file.with_suffix(NOTICE)
        assert self.small is not None
        name = f"{self.job_name}-end"
        self._small_job = self._sbatch(batch, name, folder, after, self.small)
        self.small_name, self.continues = name, True

    def _sbatch(
        self,
        batch: Batch,
        name: str,
        folder: Path,
        after: Sequence[str],
        work: Callable[..., None],
        *tasks: Sequence[str],
    ) -> str:
        """Submit one task for each of ``tasks`` (or one without arguments) as submitit does.

        Returns:
            Slurm's job id.
        """
        make_folder(folder)
        file = folder / f".{name}.sh"
        file.write_text(script(batch, name, folder, after, self.code))
        pickles = []
        calls = [partial(DelayedSubmission, work, task) for task in tasks]
        for call in calls or [partial(DelayedSubmission, work)]:
            submission = call()
            submission.set_timeout(batch.minutes, UNLIMITED_TIMEOUTS)
            pickles.append(folder / f".{secrets.token_hex(8)}.pkl")
            submission.dump(pickles[-1])
        try:
            job, said = slurm.submit(file)
        except slurm.RefusedError:
            for pickle in pickles:
                pickle.unlink()
            raise
        self.said += said
        file.rename(folder / f"{job}_submission.sh")
        # a task waits up to a minute for its pickle
        for pickle, task in zip(pickles, JobArray(name, batch.tasks, job).task_ids(), strict=True):
            pickle.rename(folder / f"{task}_submitted.pkl")
        return job
