"""The commands that read results.

python -m analysis results/<study>     write the study's report and print its tables
python -m analysis answers STUDY       print one verdict per comparison; --json: as objects
python -m analysis next STUDY          print what would settle open comparisons, and the cost
python -m analysis paper               write the paper's tables and figures from existing studies
python -m analysis diff RUN RUN        print how two runs differ: config, code, environment, result
python -m analysis publish STUDY       write a summary of a few hundred kilobytes

``mpdit report STUDY``, ``mpdit answers STUDY`` and so on are the same commands.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mpdit.commandline.door import door
from mpdit.commandline.row import ANSWERS
from mpdit.disk.rundir import PAPER, PUBLISHED
from mpdit.errors import ConfigError

# Each command imports what it needs: drawing libraries take seconds to import, and a message about
# a mistyped folder must not wait for them.


def report(
    studies: Sequence[str],
    results: Path,
    out: Path | None,
    serve: bool = False,
    port: int | None = None,
    every: float | None = None,
) -> None:
    """Write a study's report and print its tables, or show a live page while the study runs."""
    from analysis.loading.listing import study_folder

    folders = [study_folder(word, results) for word in studies]
    if serve or every:
        _live(folders, out, port, None if serve else every, both=bool(serve and every))
        return
    if port is not None:
        raise ConfigError("--port is the live page's: add --serve")
    if len(folders) > 1 and out is None:
        raise ConfigError("several studies are joined: give their report a folder with --out DIR")
    from analysis.loading.load import load

    study = load(folders if len(folders) > 1 else folders[0])
    from analysis.report import page, terminal

    file = page.write(study, out)
    terminal.show(study)
    print(f"report: {file}")


def _live(
    folders: Sequence[Path], out: Path | None, port: int | None, every: float | None, both: bool
) -> None:
    """Show a running study: on a local server, or with ``every`` in a file that is renewed."""
    if len(folders) > 1:
        raise ConfigError("a live page shows one study: give one folder")
    study = folders[0]
    if every is None:
        if both or out:
            raise ConfigError("--serve writes no file: leave --every and --out away")
        from analysis.live import server

        server.serve(study, port)
        return
    if port is not None:
        raise ConfigError("--port is the live page's: add --serve")
    from analysis.live import livepage

    file = (out or study / "report") / livepage.FILE
    print(f"live: {file} (renewed until every run is done; Ctrl-C ends it)", flush=True)
    try:
        livepage.renew(study, every, out)
    except KeyboardInterrupt:
        print("\nstopped")


def answers(study: str, results: Path, as_json: bool) -> None:
    """Print one verdict per comparison: better, worse, equivalent, undecided."""
    from analysis.judging import conclusions, plans
    from analysis.loading.listing import study_folder
    from analysis.loading.load import load
    from analysis.study import NothingToShow

    loaded = load(study_folder(study, results))
    if not as_json:
        print("\n".join(conclusions.statements(loaded)))
        return
    try:
        rows = plans.as_json(loaded)
    except NothingToShow:
        rows = []
    print(json.dumps(rows, indent=1))


def further(study: str, results: Path) -> None:
    """Print how many more seeds would settle each open comparison, their cost, and commands."""
    from analysis.judging import plans
    from analysis.loading.listing import study_folder
    from analysis.loading.load import load
    from analysis.study import NothingToShow

    loaded = load(study_folder(study, results))
    try:
        print("\n".join(map(str, plans.steps(loaded))) or "Every comparison is settled.")
    except NothingToShow as nothing:
        raise ConfigError(f"{study}: {nothing}") from None


def paper(results: Path, out: Path | None) -> None:
    """Write the paper's tables and figures, and print the commands that run missing studies."""
    from analysis.report import paper

    print(f"paper: {paper.write(results, out or results / PAPER)}")


def publish(study: str, results: Path, out: Path | None) -> None:
    """Write a small summary of a study, which `load` reads like the study itself."""
    from analysis.loading import published
    from analysis.loading.listing import study_folder
    from analysis.loading.load import load

    folder = study_folder(study, results)
    loaded = load(folder)
    out = out or folder.resolve().parent / PUBLISHED / loaded.name
    print(f"published: {published.write(loaded, out)}")


def diff(runs: Sequence[str], results: Path) -> None:
    """Print how two runs differ: in config, code, environment and result."""
    from analysis.loading.load import load_run
    from analysis.report import diff
    from mpdit.disk.rundir import find_run

    first, second = (load_run(find_run(word, results)) for word in runs)
    diff.show(first, second)


COMMANDS = ("report", "answers", "next", "paper", "publish", "diff")
"""The named commands; without a name, the command is ``report``."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 2 for a user's mistake, 1 for a read error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    named = given[:1] in (["-h"], ["--help"]) or (given and given[0] in COMMANDS)
    return door(given, "analysis", group=ANSWERS) if named else door(given, "analysis", "report")


if __name__ == "__main__":
    sys.exit(main())
