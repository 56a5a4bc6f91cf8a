"""Tables, figures and a report from a study's results.

python -m analysis results/<study>     write its report and print its tables
python -m analysis paper               everything the paper shows, from the studies there are
python -m analysis diff RUN RUN        how two runs differ: config, code, environment, result
python -m analysis publish STUDY       its results in a few hundred kilobytes
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mpdit.errors import ConfigError, say

RESULTS = Path("results")


def _report(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "study", type=Path, nargs="+", help="a study's folder, results/<study>; several are joined"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: <study>/report")
    options = parser.parse_args(arguments)
    if len(options.study) > 1 and options.out is None:
        raise ConfigError("several studies are joined: say where their report goes, --out DIR")
    from analysis.loading.load import load

    study = load(options.study if len(options.study) > 1 else options.study[0])
    # seaborn takes seconds to import: a mistyped folder need not wait for it.
    from analysis.report import page, terminal

    file = page.write_loaded(study, options.out)
    terminal.show(study)
    print(f"report: {file}")


def _paper(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis paper",
        description="Write everything the paper shows, from whichever of its studies are there; "
        "say which are missing, and the command that makes them.",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="%(default)s")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: <results>/paper")
    options = parser.parse_args(arguments)
    from analysis.report import paper

    print(f"paper: {paper.write(options.results, options.out or options.results / 'paper')}")


def _publish(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis publish",
        description="Write a study's results as a small summary, to be kept under version "
        "control; python -m analysis reads it like the study itself.",
    )
    parser.add_argument("study", type=Path, help="a study's folder, results/<study>")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: published/<study> beside the study"
    )
    options = parser.parse_args(arguments)
    from analysis.loading import published
    from analysis.loading.load import load

    study = load(options.study)
    out = options.out or options.study.resolve().parent / "published" / study.name
    print(f"published: {published.write(study, out)}")


def _diff(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m analysis diff",
        description="How two runs differ: in config, code, environment and result.",
    )
    parser.add_argument(
        "runs",
        nargs=2,
        metavar="RUN",
        help="its folder, name, id, or how its name begins",
    )
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="%(default)s")
    options = parser.parse_args(arguments)
    from analysis.loading.load import load_run
    from analysis.report import diff
    from mpdit.disk.rundir import find_run

    first, second = (load_run(find_run(word, options.results)) for word in options.runs)
    diff.show(first, second)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "paper": _paper,
    "diff": _diff,
    "publish": _publish,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 2 for what the user has to mend, 1 for a file that cannot be read."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given and given[0] in COMMANDS:
            COMMANDS[given[0]](given[1:])
        else:
            _report(given)
    except (ConfigError, OSError) as error:
        return say(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
