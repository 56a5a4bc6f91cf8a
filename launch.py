#!/usr/bin/env python3
"""The command line: plan, submit and follow studies. ``launch.py GRID`` means ``submit GRID``."""

from __future__ import annotations

import gc
import json
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from mpdit.grid.plan import Plan

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help takes three times as long to appear
    help="Plan, run and follow studies of Diffusion Transformers. "
    "'launch.py GRID' is short for 'launch.py submit GRID'.",
)

GridFile = Annotated[
    Path, typer.Argument(metavar="GRID", help="A grid file, such as experiments/*.yaml")
]
StudyName = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study's folder, or its name under results/")
]
RunName = Annotated[
    str,
    typer.Argument(metavar="RUN", help="A run's folder, name or id; with --only, a study's"),
]
Results = Annotated[
    Path, typer.Option("--results", metavar="DIR", help="The folder of all studies")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a value in every run, such as train.steps=100"
    ),
]
ResourceSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set a resource this time, such as slurm.partition=gpu"
    ),
]
Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        metavar="PATTERN",
        help="Only runs or variants of this name, such as 'E-*'; can be repeated",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON")]
Parallel = Annotated[
    int | None,
    typer.Option(
        "--max-parallel",
        metavar="N",
        min=1,
        help="Runs at once [local: one a GPU or core; Slurm: the grid's max_parallel]",
    ),
]
OnEnd = Annotated[
    str | None,
    typer.Option(
        "--on-end",
        metavar="COMMAND",
        help="Run this shell command when all runs have ended; $MPDIT_SUMMARY counts them",
    ),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="Wait until all runs have ended, and show their progress")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before a large submission")]
LiveCode = Annotated[
    bool,
    typer.Option(
        "--live-code", help="Runs execute the code as it is when they start, not a snapshot of it"
    ),
]
RESULTS = Path("results")


@app.command()
def plan(
    grid: GridFile,
    sets: Sets = None,
    only: Only = None,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
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


@app.command()
def submit(
    grid: GridFile,
    cluster: Annotated[
        str,
        typer.Option(
            metavar="auto|slurm|local",
            help="auto: Slurm where the grid has 'slurm:' and sbatch exists, else local",
        ),
    ] = "auto",
    results: Results = RESULTS,
    max_parallel: Parallel = None,
    wait: Wait = False,
    sets: Sets = None,
    only: Only = None,
    yes: Yes = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scripts for sbatch; write nothing")
    ] = False,
    on_end: OnEnd = None,
    live_code: LiveCode = False,
    retry: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Retry runs by themselves on Slurm, after they were out of memory or time "
            "or their node failed [the grid's slurm.retry]",
        ),
    ] = None,
) -> None:
    """Run the missing runs of a grid.

    Done runs are skipped, running ones are left alone, interrupted ones are resumed.
    """
    from mpdit.errors import ConfigError
    from mpdit.study.screens import messages, submitting
    from mpdit.study.submission import Execution, choose_cluster

    part, whole = _load(grid, sets, only, results)
    how = Execution(choose_cluster(cluster, part), max_parallel, on_end, live_code, retry)
    if retry is not None and how.cluster != "slurm":
        raise ConfigError("--retry needs Slurm. On this machine, use the command retry.")
    if dry_run or not yes:
        present = _of_stage(part, whole, results)
    if dry_run:
        print("\n".join(messages.dry_run(present, results, how)))
        return
    if not yes:
        submitting.agree(present, results)
    raise typer.Exit(submitting.submit(part, results, how, wait, whole, grid_name=str(grid)))


@app.command()
def retry(
    study: StudyName,
    results: Results = RESULTS,
    only: Only = None,
    max_parallel: Parallel = None,
    wait: Wait = False,
    time: Annotated[
        str | None, typer.Option(metavar="T", help="A time limit (4:00:00) or a factor (x2)")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="M", help="Memory (16G) or a factor (x2)")
    ] = None,
    sets: ResourceSets = None,
    on_end: OnEnd = None,
    live_code: LiveCode = False,
) -> None:
    """Run again what failed, timed out, ran out of memory or was lost.

    What failed by itself gets the present code, other runs resume with their own. A factor
    multiplies the amount of the run's last submission.
    """
    from mpdit.study.choosing import select_part
    from mpdit.study.retry import STATES, adjust, last_cluster
    from mpdit.study.screens import submitting
    from mpdit.study.studydir import find_study
    from mpdit.study.submission import Execution, choose_cluster, stored_plan

    found = find_study(study, results)
    plan = stored_plan(found)
    part = select_part(found, plan, only or ())
    how = Execution(choose_cluster(last_cluster(found), plan), max_parallel, on_end, live_code)
    name = found.grid_name
    more = partial(adjust, study=found, time=time, memory=memory, sets=sets or ())
    options = {"grid_name": name, "states": STATES, "adjust": more}
    raise typer.Exit(submitting.submit(part, found.path.parent, how, wait, plan, **options))


@app.command()
def status(
    study: StudyName,
    results: Results = RESULTS,
    only: Only = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the study until it ends")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the state of every run of a study."""
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
    names = None if found.is_staged and not only else select_runs(found, only or ())
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


@app.command()
def logs(
    run: RunName,
    results: Results = RESULTS,
    only: Only = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines as they are written")
    ] = False,
) -> None:
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


@app.command()
def cancel(study: StudyName, results: Results = RESULTS, only: Only = None) -> None:
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
    names = select_runs(found, only or ())
    done = cancel_study(found, only=names if only else None)
    if left := done.asked - done.stopped:
        _fail(f"{left} of {done.asked} processes and tasks have not stopped yet", 1)
    if not done.asked:
        what = named(found, only)
        print(f"nothing of {what} is running on this machine or in Slurm")
        return
    print(f"stopped; {summary(survey(found, names), painter())}")


@app.command()
def hold(study: StudyName, results: Results = RESULTS, only: Only = None) -> None:
    """Keep a study's waiting runs from starting, until they are released."""
    from mpdit.study.choosing import select_runs
    from mpdit.study.hold import hold as hold_runs
    from mpdit.study.screens.messages import held_lines
    from mpdit.study.screens.program import command, named
    from mpdit.study.studydir import find_study
    from mpdit.text import painter

    found = find_study(study, results)
    done = hold_runs(found, select_runs(found, only or ()))
    print(*held_lines(done, f"nothing of {named(found, only)} waits", painter()), sep="\n")
    if done.runs:
        print(painter()(f"  {command('release', found, only)}", "dim"))


@app.command()
def release(study: StudyName, results: Results = RESULTS, only: Only = None) -> None:
    """Let a study's held runs start."""
    from mpdit.study.choosing import select_runs
    from mpdit.study.hold import release as release_runs
    from mpdit.study.screens.messages import held_lines
    from mpdit.study.screens.program import named
    from mpdit.study.studydir import find_study
    from mpdit.text import painter

    found = find_study(study, results)
    done = release_runs(found, select_runs(found, only or ()))
    print(*held_lines(done, f"nothing of {named(found, only)} is held", painter()), sep="\n")


def _load(
    file: Path, sets: list[str] | None, only: list[str] | None, results: Path
) -> tuple[Plan, Plan]:
    """The requested part of a plan, and the whole plan, with the defaults that its study has."""
    from mpdit.grid.grid import load_grid
    from mpdit.grid.plan import make_plan
    from mpdit.grid.site import site_resources
    from mpdit.study.studydir import StudyDir

    grid = load_grid(file, sets or (), site=site_resources())
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


def _fail(message: str, code: int = 2) -> NoReturn:
    from mpdit.text import one_line, painter

    print(painter(sys.stderr)(f"error: {one_line(message, 1000)}", "red"), file=sys.stderr)
    sys.exit(code)


def _with_command(arguments: list[str]) -> list[str]:
    """Insert ``submit`` where the command line has a grid and no command."""
    commands = {
        command.callback.__name__ for command in app.registered_commands if command.callback
    }
    first = next(iter(arguments), "-")
    if first.startswith("-"):
        is_grid = commands.isdisjoint(arguments) and any(map(_is_yaml, arguments))
    else:
        is_grid = first not in commands and (_is_yaml(first) or Path(first).is_file())
    return ["submit", *arguments] if is_grid else arguments


def _is_yaml(word: str) -> bool:
    return word.endswith((".yaml", ".yml"))


def main(arguments: list[str] | None = None) -> None:
    """Run one command; a user's mistake is one line and exit status 2."""
    gc.set_threshold(200_000, 20, 20)  # ten thousand runs are many objects and little garbage
    from mpdit.errors import command

    words = _with_command(sys.argv[1:] if arguments is None else arguments)
    sys.exit(command(_execute)(words))


def _execute(words: list[str]) -> int:
    try:
        return app(words, standalone_mode=False) or 0
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if hasattr(error, "format_message"):  # one of click's, on the command line
            _fail(f"{error.format_message()} (see {sys.argv[0]} --help)")
        from mpdit.errors import EXIT_FAILED, ConfigError, explain_os_error

        if isinstance(error, ConfigError):
            _fail(str(error))
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            _fail(explain_os_error(error), EXIT_FAILED)
        raise


if __name__ == "__main__":
    main()
