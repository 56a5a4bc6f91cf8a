"""Tables, figures and a report from a study's results.

python -m analysis results/<study>     write its report and print its tables
python -m analysis answers STUDY       one verdict a comparison; --json: as objects
python -m analysis next STUDY          what would settle the open comparisons, and its cost
python -m analysis paper               everything the paper shows, from the studies there are
python -m analysis diff RUN RUN        how two runs differ: config, code, environment, result
python -m analysis publish STUDY       its results in a few hundred kilobytes
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mpdit.disk.rundir import PAPER, PUBLISHED
from mpdit.errors import ConfigError, command

# Each command imports what it needs: seaborn takes seconds, and a mistyped folder must not wait.


def _report(options: argparse.Namespace) -> None:
    """Write a study's report and print its tables."""
    if len(options.study) > 1 and options.out is None:
        raise ConfigError("several studies are joined: give their report a folder with --out DIR")
    from analysis.loading.load import load

    study = load(options.study if len(options.study) > 1 else options.study[0])
    from analysis.report import page, terminal

    file = page.write(study, options.out)
    terminal.show(study)
    print(f"report: {file}")


def _answers(options: argparse.Namespace) -> None:
    """Print one verdict a comparison: better, worse, equivalent, undecided."""
    from analysis.judging import conclusions, plans
    from analysis.loading.load import load
    from analysis.study import NothingToShow

    study = load(options.study)
    if not options.json:
        print("\n".join(conclusions.statements(study)))
        return
    try:
        rows = plans.as_json(study)
    except NothingToShow:
        rows = []
    print(json.dumps(rows, indent=1))


def _next(options: argparse.Namespace) -> None:
    """Print how many more seeds would settle each open comparison, their cost, and commands."""
    from analysis.judging import plans
    from analysis.loading.load import load
    from analysis.study import NothingToShow

    study = load(options.study)
    try:
        print("\n".join(plans.lines(study)) or "Every comparison is settled.")
    except NothingToShow as nothing:
        raise ConfigError(f"{options.study}: {nothing}") from None


def _paper(options: argparse.Namespace) -> None:
    """Write everything the paper shows, and print the commands that make its missing studies."""
    from analysis.report import paper

    print(f"paper: {paper.write(options.results, options.out or options.results / PAPER)}")


def _publish(options: argparse.Namespace) -> None:
    """Write a study's results as a small summary, which is read like the study itself."""
    from analysis.loading import published
    from analysis.loading.load import load

    study = load(options.study)
    out = options.out or options.study.resolve().parent / PUBLISHED / study.name
    print(f"published: {published.write(study, out)}")


def _diff(options: argparse.Namespace) -> None:
    """Print how two runs differ: in config, code, environment and result."""
    from analysis.loading.load import load_run
    from analysis.report import diff
    from mpdit.disk.rundir import find_run

    first, second = (load_run(find_run(word, options.results)) for word in options.runs)
    diff.show(first, second)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "": _report,
    "answers": _answers,
    "next": _next,
    "paper": _paper,
    "publish": _publish,
    "diff": _diff,
}
OUT = {"": "<study>/report", "paper": "<results>/paper", "publish": "published/<study>"}
"""Where each writes by default."""
STUDY = "a study's folder, results/<study>"


def _parser(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m analysis {command}".rstrip(),
        description=COMMANDS[command].__doc__ if command else __doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    if command == "":
        add("study", type=Path, nargs="+", help=f"{STUDY}; several are joined")
    elif command in ("publish", "answers", "next"):
        add("study", type=Path, help=STUDY)
    else:
        add("--results", type=Path, default=Path("results"), metavar="DIR", help="%(default)s")
    if command == "answers":
        add("--json", action="store_true", help="a list with one object a comparison")
    elif command == "next":
        pass
    elif command == "diff":
        add("runs", nargs=2, metavar="RUN", help="its folder, name, id, or how its name begins")
    else:
        add("--out", type=Path, metavar="DIR", help=f"default: {OUT[command]}")
    return parser


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 for what the user has to mend, 1 for a file that cannot be read."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given.pop(0) if given and given[0] in COMMANDS else ""
    COMMANDS[name](_parser(name).parse_args(given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
