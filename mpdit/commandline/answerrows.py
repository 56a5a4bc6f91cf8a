"""The commands that read results: reports, verdicts, comparisons (`analysis.__main__`)."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from mpdit.commandline.completers import runs, studies
from mpdit.commandline.parser import Options
from mpdit.commandline.row import ANSWERS, Command

EVERY = "write <study>/report/live.html every so often (30s, 5m, 1h) until every run is done"


def _study(options: Options) -> None:
    text = "a study's folder, or its name under results/"
    options.add("study", metavar="STUDY", complete=studies, help=text)
    options.results()


def _out(options: Options, default: str) -> None:
    options.add("--out", type=Path, metavar="DIR", help=f"the folder to write (default: {default})")


def _report(options: Options) -> None:
    text = "a study's folder, or its name under results/; several are joined"
    options.add("studies", nargs="+", metavar="STUDY", complete=studies, help=text)
    options.results()
    _out(options, "<study>/report")
    options.flag("--serve", "show a live page on this machine, until Ctrl-C")
    options.add("--port", type=_port, metavar="PORT", help="of the live page (default: 8420)")
    options.add("--every", type=_seconds, metavar="TIME", help=EVERY)


def _seconds(text: str) -> float:
    """``30s``, ``5m`` or ``1h`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h)", text)
    seconds = float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0
    if seconds < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time of at least 1s, such as 30s or 5m"
        )
    return seconds


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number up to 65535")
    return int(text)


def _answers(options: Options) -> None:
    _study(options)
    options.flag("--json", "print a list with one object a comparison", dest="as_json")


def _paper(options: Options) -> None:
    options.results()
    _out(options, "<results>/paper")


def _diff(options: Options) -> None:
    text = "a run's folder, name, id, or the beginning of its name"
    options.add("runs", nargs=2, metavar="RUN", complete=runs, help=text)
    options.results()


def _publish(options: Options) -> None:
    _study(options)
    _out(options, "published/<study> beside the study")


ROWS = (
    Command(
        "report",
        ANSWERS,
        "STUDY",
        "write verdicts, tables and figures as one page, and print the tables",
        "analysis.__main__:report",
        _report,
    ),
    Command(
        "answers",
        ANSWERS,
        "STUDY",
        "print one verdict a comparison: better, worse, equivalent, undecided",
        "analysis.__main__:answers",
        _answers,
    ),
    Command(
        "next",
        ANSWERS,
        "STUDY",
        "print what would settle each open comparison: seeds, cost, command",
        "analysis.__main__:further",
        _study,
    ),
    Command(
        "paper",
        ANSWERS,
        "",
        "write the paper's tables and figures, and print how to run missing studies",
        "analysis.__main__:paper",
        _paper,
    ),
    Command(
        "diff",
        ANSWERS,
        "RUN RUN",
        "print how two runs differ: config, code, environment, result",
        "analysis.__main__:diff",
        _diff,
    ),
    Command(
        "publish",
        ANSWERS,
        "STUDY",
        "write a study's results as a summary of a few hundred kilobytes",
        "analysis.__main__:publish",
        _publish,
    ),
)
