"""Everything that only a GPU can show: ``python benchmarks/gpu.py``.

Each check is its own process with a time limit, so that a crash does not end the other checks. It
prints rows as it runs: the measured value, and ``ok`` or ``FAIL`` where there is a right answer.
The rows are also kept as JSON lines in OUT/gpu.jsonl, and all output of the processes in
OUT/gpu.log. The exit status is 1 when a row fails.

``--only bits speed`` runs some of the checks. ``--tiny --device cpu`` runs all of them on small
models where there is no GPU. Only the package and its dependencies are needed; the weights of
Inception and the VAE are random.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from gpu_checks.frame import CHECKS, ROOT, Frame, run_here

SECONDS = 530


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    checks = ", ".join(CHECKS)
    parser.add_argument("--only", nargs="+", metavar="CHECK", choices=CHECKS, help=checks)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models, few rounds")
    parser.add_argument("--out", type=Path, default=Path(), help="where the rows are kept")
    parser.add_argument(
        "--seconds", type=float, default=SECONDS, help="no check begins later than this"
    )
    parser.add_argument("--patience", type=float, default=1.0, help="factor on the checks' limits")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        sys.path.insert(0, str(ROOT))
        run_here(given.here[0], given.here[1:], given.device, given.tiny)
        return 0
    frame = Frame(given.device, given.tiny, given.out, given.seconds, given.patience)
    return frame.run(given.only or list(CHECKS))


if __name__ == "__main__":
    sys.exit(main())
