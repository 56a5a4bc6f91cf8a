"""The commands on a study: plan and submit, follow and steer (`mpdit.study.actions`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpdit.commandline.completers import grids, runs, studies
from mpdit.commandline.parser import Options, at_least
from mpdit.commandline.row import STEER, STUDY, Command

A_STUDY = "a study's folder, or its name under results/"


def _grid(options: Options) -> None:
    text = "a grid file, such as experiments/quickstart.yaml"
    options.add("grid", type=Path, metavar="GRID", complete=grids, help=text)


def _study(options: Options, text: str = A_STUDY, **more: Any) -> None:
    options.add("study", metavar="STUDY", complete=studies, help=text, **more)
    options.results()


def _sets(options: Options, text: str) -> None:
    options.several("--set", "KEY=VALUE", f"{text}; can be repeated", dest="sets")


def _only(options: Options) -> None:
    text = "only runs or variants of this name, such as 'E-*' or plain_s0; can be repeated"
    options.several("--only", "PATTERN", text)


def _json(options: Options) -> None:
    options.flag("--json", "print JSON", dest="as_json")


def _start(options: Options) -> None:
    """How runs are started."""
    parallel = "runs at once (local: one a GPU or core; Slurm: the grid's max_parallel)"
    options.add("--max-parallel", type=at_least(1), metavar="N", help=parallel)
    options.flag("--wait", "wait until all runs have ended, and show their progress")
    end = "run this shell command when all runs have ended; $MPDIT_SUMMARY counts them"
    options.add("--on-end", metavar="COMMAND", help=end)
    live = "take no snapshot of the code: runs execute it as it is when they start"
    options.flag("--live-code", live)


def _plan(options: Options) -> None:
    _grid(options)
    _sets(options, "set a value in every run, such as train.steps=100")
    _only(options)
    options.results()
    _json(options)


def _submit(options: Options) -> None:
    _grid(options)
    text = "slurm, local, or auto: Slurm where the grid has 'slurm:' and sbatch exists, else local"
    options.add("--cluster", default="auto", metavar="NAME", help=f"{text} (default: auto)")
    options.results()
    _sets(options, "set a value in every run, such as train.steps=100")
    _only(options)
    _start(options)
    options.flag("--yes", "do not ask before a large submission")
    options.flag("--dry-run", "print the scripts for sbatch; write nothing")
    text = "retries on Slurm of a run that was out of memory or time, or whose node failed"
    options.add("--retry", type=at_least(0), metavar="N", help=f"{text} (the grid's slurm.retry)")


def _retry(options: Options) -> None:
    _study(options)
    _only(options)
    _sets(options, "set a resource this time, such as slurm.partition=gpu")
    options.add("--time", metavar="T", help="a time limit (4:00:00) or a factor (x2)")
    options.add("--memory", metavar="M", help="memory (16G) or a factor (x2)")
    _start(options)


def _status(options: Options) -> None:
    _study(options, f"{A_STUDY}; without it, one line for each study", nargs="?")
    _only(options)
    options.flag("--watch", "follow the study until it ends")
    _json(options)


def _logs(options: Options) -> None:
    text = "a run's folder, name, STUDY/NAME or id; with --only, a study"
    options.add("run", metavar="RUN", complete=runs, help=text)
    options.results()
    _only(options)
    options.add("-f", "--follow", action="store_true", help="print new lines as they are written")


def _part(options: Options) -> None:
    _study(options)
    _only(options)


SKIPPED = "Done runs are skipped, running ones are left alone, interrupted ones are resumed."
PRESENT = """\
Runs that failed because of their code get the present code; others resume with their own code. A
factor multiplies the run's last amount."""

ROWS = (
    Command(
        "plan",
        STUDY,
        "GRID",
        "list the runs of a grid and their cost; write nothing",
        "mpdit.study.actions:plan",
        _plan,
    ),
    Command(
        "submit",
        STUDY,
        "GRID",
        "run what is missing, here or on Slurm ('submit' may be left out)",
        "mpdit.study.actions:submit",
        _submit,
        SKIPPED,
    ),
    Command(
        "status",
        STEER,
        "[STUDY]",
        "print the state of every run, or one line for each study; --watch follows a study",
        "mpdit.study.actions:status",
        _status,
    ),
    Command(
        "logs",
        STEER,
        "RUN",
        "print a run's log, or with --only those of several runs of a study",
        "mpdit.study.actions:logs",
        _logs,
    ),
    Command(
        "cancel",
        STEER,
        "STUDY",
        "stop runs; they keep their state, and submit resumes them",
        "mpdit.study.actions:cancel",
        _part,
    ),
    Command(
        "retry",
        STEER,
        "STUDY",
        "run again what failed, timed out, ran out of memory or was lost",
        "mpdit.study.actions:retry",
        _retry,
        PRESENT,
    ),
    Command(
        "hold",
        STEER,
        "STUDY",
        "keep waiting runs from starting until they are released",
        "mpdit.study.actions:hold",
        _part,
    ),
    Command(
        "release",
        STEER,
        "STUDY",
        "let held runs start",
        "mpdit.study.actions:release",
        _part,
    ),
)
