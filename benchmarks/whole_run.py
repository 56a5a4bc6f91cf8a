"""The quickstart's runs from submission to evaluation: ``whole_run.py [--against CHECKOUT]``.

Submits two seeds of some of its variants to the local pool, as the quickstart does, and waits for
their end. With another checkout of the repository (``git worktree add ../old COMMIT``) the two
take turns, and the median ratio of their times is printed. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parents[1]
GRID = HERE / "experiments/quickstart.yaml"
SEEDS = 4
PROMISED = 0.75


def grid_of(variants: list[str]) -> dict[str, Any]:
    """The quickstart's grid with these variants, in keys that older checkouts know."""
    whole = yaml.safe_load(GRID.read_text())
    chosen = {name: whole["variants"][name] for name in variants}
    base = {**whole["base"], "evaluate": {"repeats": 1}}
    return {"study": whole["study"], "base": base, "variants": chosen, "seeds": SEEDS}


def execute(variants: list[str], checkout: Path) -> float:
    """The seconds that a checkout needs for the runs of these variants."""
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder) / GRID.name
        grid.write_text(yaml.safe_dump(grid_of(variants)))
        command = [sys.executable, str(checkout / "launch.py"), "submit", grid.name]
        command += ["--cluster", "local", "--wait"]
        paths = (str(checkout), os.environ.get("PYTHONPATH"))  # an older one's requirements
        own = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "MPDIT_CACHE": f"{folder}/cache"}
        began = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **own},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT")
    parser.add_argument("--variants", nargs="+", default=["none", "all"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    given = parser.parse_args()
    checkouts = [HERE, *([given.against.resolve()] if given.against else [])]
    taken: list[list[float]] = []
    for turn in range(given.rounds):
        order = checkouts if turn % 2 else checkouts[::-1]
        spent = {checkout: execute(given.variants, checkout) for checkout in order}
        taken.append([spent[checkout] for checkout in checkouts])
        if not given.json:
            print(" against ".join(f"{seconds:.1f} s" for seconds in taken[-1]), flush=True)
    found: dict[str, Any] = {"runs": SEEDS * len(given.variants), "seconds": taken}
    if given.against:
        found["ratio"] = statistics.median(own / other for own, other in taken)
    if given.json:
        print(json.dumps(found))
    elif given.against:
        print(f"ratio {found['ratio']:.2f}; promised {PROMISED}")


if __name__ == "__main__":
    main()
