"""The commands on a study; `mpdit.commandline.studyrows` has their options.

Each function imports the modules that it needs: a plan does not wait for Slurm's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpdit.errors import EXIT_DONE, EXIT_FAILED, ConfigError, reason_of

if TYPE_CHECKING:
    from mpdit.grid.plan import Plan

Words = Sequence[str]


def plan(grid: Path, sets: Words, only: Words, results: Path, as_json: bool) -> None:
    """List the runs of a grid and their cost; write nothing."""
    from mpdit.study.cost import make_bill
    from mpdit.study.screens.plantable import plan_lines
    from mpdit.study.screens.stagelines import forecast_lines
    from mpdit.study.screens.submitting import changes
    from mpdit.study.staging import read_stage
    from mpdit.study.studydir import StudyDir
    from mpdit.text import painter

    part, whole = _load(grid, sets, only, results)
    study = StudyDir(results / part.study)
    stage = read_stage(whole, study)
    part = part if stage is None else stage.narrow(part)
    bill = make_bill(part.runs, study)
    if as_json:
        rows = (
            {
                **run.summary(),
                "parts": run.parts,
                "slurm": run.resources.model_dump(),
                "cost": cost.row(),
                "config": run.config.resolved(),
            }
            for run, cost in zip(part.runs, bill.costs, strict=True)
        )
        _print_json(rows)
    else:
        changed = changes(study, whole, *study.compare(whole))
        stages = forecast_lines(whole, stage, study, painter())
        print("\n".join((*plan_lines(part, bill, painter()), *stages, *changed)))


def submit(
    grid: Path,
    cluster: str,
    results: Path,
    max_parallel: int | None,
    wait: bool,
    sets: Words,
    only: Words,
    yes: bool,
    dry_run: bool,
    on_end: str | None,
    live_code: bool,
    retry: int | None,
) -> int:
    """Run the missing runs of a grid.

    Done runs are skipped, running ones are left alone, interrupted ones are resumed.
    """
    from mpdit.study.screens import messages, submitting
    from mpdit.study.submission import Execution, check_plan, choose_cluster

    part, whole = _load(grid, sets, only, results)
    how = Execution(choose_cluster(cluster, part), max_parallel, on_end, live_code, retry)
    if retry is not None and how.cluster != "slurm":
        raise ConfigError("--retry needs Slurm. On this machine, use the command retry.")
    if dry_run or not yes:
        present = _of_stage(part, whole, results)
    if dry_run:
        check_plan(part, results)
        print("\n".join(messages.dry_run(present, results, how)))
        return EXIT_DONE
    if not yes:
        submitting.agree(present, results)
    return submitting.submit(part, results, how, wait, whole, grid_name=str(grid))


def retry(
    study: str,
    results: Path,
    only: Words,
    max_parallel: int | None,
    wait: bool,
    time: str | None,
    memory: str | None,
    sets: Words,
    on_end: str | None,
    live_code: bool,
) -> int:
    """Run again what failed, timed out, ran out of memory or was lost.

    Runs that failed because of their code get the present code; others resume with their own
    code. A factor multiplies the run's last amount.
    """
    from mpdit.study.choosing import select_part
    from mpdit.study.retry import STATES, adjust, last_cluster
    from mpdit.study.screens import submitting
    from mpdit.study.studydir import find_study
    from mpdit.study.submission import Execution, choose_cluster, stored_plan

    found = find_study(study, results)
    plan = stored_plan(found)
    part = select_part(found, plan, only)
    how = Execution(choose_cluster(last_cluster(found), plan), max_parallel, on_end, live_code)
    name = found.grid_name
    more = partial(adjust, study=found, time=time, memory=memory, sets=sets)
    options = {"grid_name": name, "states": STATES, "adjust": more}
    return submitting.submit(part, found.path.parent, how, wait, plan, **options)


def status(study: str | None, results: Path, only: Words, watch: bool, as_json: bool) -> None:
    """Print the state of every run of a study, or one line for each study."""
    if study is None:
        if only or watch:
            raise ConfigError("--only and --watch need a study: name one")
        _studies(results, as_json)
        return
    from mpdit.study.advance import stage_on_disk
    from mpdit.study.choosing import select_runs
    from mpdit.study.cluster.scheduler import Scheduler
    from mpdit.study.screens.codelines import differing
    from mpdit.study.screens.dropped import active_lines
    from mpdit.study.screens.program import command
    from mpdit.study.screens.stagelines import stage_lines
    from mpdit.study.screens.statustable import overview, status_lines
    from mpdit.study.screens.watch import follow
    from mpdit.study.status import survey
    from mpdit.study.studydir import StudyDir, find_study
    from mpdit.text import painter

    found = find_study(study, results)
    names = None if found.is_staged and not only else select_runs(found, only)
    if watch and not as_json:
        try:
            follow(found, names, lambda: False, sys.stdout)
        except KeyboardInterrupt:
            print()
        found = StudyDir(found.path)
    scheduler = Scheduler()
    statuses = survey(found, names, scheduler)
    if as_json:
        _print_json(map(asdict, statuses))
        return
    paint = painter()
    head = overview(found.name, statuses, scheduler.silence, paint)
    outside = [entry["name"] for entry in found.entries if not entry.get("in_grid", True)]
    active = [status for status in statuses if not status.in_grid and status.is_pending]
    dropped = active_lines(found, active, outside, command("cancel", found), paint)
    stage = stage_on_disk(found)
    stages = stage_lines(stage, statuses, command("retry", found), paint)
    codes = (paint(line, "dim") for line in differing(found, statuses))
    print(*head, *stages, *dropped, *codes, "", *status_lines(statuses, paint), sep="\n")


def _studies(results: Path, as_json: bool) -> None:
    """Print the counts of every study under a folder.

    Raises:
        ConfigError: when there is none.
    """
    from mpdit.study.cluster.scheduler import Scheduler
    from mpdit.study.screens.statustable import overview
    from mpdit.study.status import survey
    from mpdit.study.studydir import StudyDir
    from mpdit.text import painter

    files = sorted(results.glob("*/study.json"))
    if not files:
        raise ConfigError(f"there is no study in {results}. submit GRID starts one")
    scheduler, paint = Scheduler(), painter()
    width = max(len(file.parent.name) for file in files)
    rows = []
    for file in files:
        study = StudyDir(file.parent)
        try:
            found = survey(study, scheduler=scheduler)
        except (ConfigError, OSError) as error:  # the others are still shown
            print(f"error: {reason_of(error)}", file=sys.stderr)
            continue
        if as_json:
            rows.append({"study": study.name, **Counter(status.word for status in found)})
        else:
            print(*overview(study.name.ljust(width), found, scheduler.silence, paint), sep="\n")
    if as_json:
        _print_json(rows)


def logs(run: str, results: Path, only: Words, follow: bool) -> None:
    """Print a run's log, or with --only those of several runs of a study."""
    from mpdit.disk.rundir import find_run
    from mpdit.study.choosing import select_runs
    from mpdit.study.screens.logs import show_logs
    from mpdit.study.studydir import StudyDir, find_study

    if only:
        study = find_study(run, results)
        names = select_runs(study, only)
    else:
        folder = find_run(run, results).path
        study, names = StudyDir(folder.parent), [folder.name]
    for reason in show_logs(study, names, sys.stdout, follow):
        print(reason, file=sys.stderr)


def cancel(study: str, results: Path, only: Words) -> int:
    """Stop a study's runs, on Slurm and on this machine.

    They keep their state; submit resumes them.
    """
    from mpdit.study.cancel import cancel as cancel_study
    from mpdit.study.choosing import select_runs
    from mpdit.study.screens.program import named
    from mpdit.study.status import summary, survey
    from mpdit.study.studydir import find_study
    from mpdit.text import painter

    found = find_study(study, results)
    names = select_runs(found, only)
    done = cancel_study(found, only=names if only else None)
    if left := done.asked - done.stopped:
        print(
            f"error: {left} of {done.asked} processes and tasks have not stopped yet. "
            "Run the same command again.",
            file=sys.stderr,
        )
        return EXIT_FAILED
    if not done.asked:
        what = named(found, only)
        print(f"no run of {what} is running on this machine or in Slurm")
        return EXIT_DONE
    print(f"stopped; {summary(survey(found, names), painter())}")
    return EXIT_DONE


def hold(study: str, results: Path, only: Words) -> None:
    """Keep a study's waiting runs from starting, until they are released."""
    from mpdit.study.choosing import select_runs
    from mpdit.study.hold import hold as hold_runs
    from mpdit.study.screens.messages import held_lines
    from mpdit.study.screens.program import command, named
    from mpdit.study.studydir import find_study
    from mpdit.text import painter

    found = find_study(study, results)
    done = hold_runs(found, select_runs(found, only))
    print(*held_lines(done, f"no run of {named(found, only)} waits", painter()), sep="\n")
    if done.runs:
        print(painter()(f"  {command('release', found, only)}", "dim"))


def release(study: str, results: Path, only: Words) -> None:
    """Let a study's held runs start."""
    from mpdit.study.choosing import select_runs
    from mpdit.study.hold import release as release_runs
    from mpdit.study.screens.messages import held_lines
    from mpdit.study.screens.program import named
    from mpdit.study.studydir import find_study
    from mpdit.text import painter

    found = find_study(study, results)
    done = release_runs(found, select_runs(found, only))
    print(*held_lines(done, f"no run of {named(found, only)} is held", painter()), sep="\n")


def _load(file: Path, sets: Words, only: Words, results: Path) -> tuple[Plan, Plan]:
    """The requested part of a plan, and the whole plan, both with their study's defaults."""
    from mpdit.grid.grid import load_grid
    from mpdit.grid.plan import make_plan
    from mpdit.grid.site import site_resources
    from mpdit.study.studydir import StudyDir

    grid = load_grid(file, sets, site=site_resources())
    whole = make_plan(grid, StudyDir(results / grid.study).defaults)
    return (whole.only(*only) if only else whole), whole


def _of_stage(part: Plan, whole: Plan, results: Path) -> Plan:
    """The runs of a plan that the present stage of its study lacks; all where it has no stages."""
    from mpdit.study.staging import read_stage
    from mpdit.study.studydir import StudyDir

    stage = read_stage(whole, StudyDir((results / whole.study).absolute()))
    return part if stage is None else stage.narrow(part, pending=True)


def _print_json(rows: Any) -> None:
    """Print a JSON list, one object a line."""
    print("[" + ",\n ".join(json.dumps(row) for row in rows) + "]")
