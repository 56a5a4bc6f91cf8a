"""``python -m analysis results/<study>``: write the study's report and print its table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mpdit.config import ConfigError


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, or 2 for what the user has to mend."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("study", type=Path, help="a study's folder, results/<study>")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: <study>/report")
    options = parser.parse_args(arguments)
    try:
        from analysis.load import load

        study = load(options.study)
        # seaborn takes seconds to import: a mistyped folder need not wait for it.
        from analysis import report, terminal

        page = report.write_loaded(study, options.out)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    terminal.show(study)
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
