"""Runs checks as processes with time limits; prints and stores their rows.

The processes are forked from one that has imported PyTorch and has not used the GPU. This process
does not import PyTorch.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
MARK = "ROW "
"""The beginning of a row in a check's output; all other output goes to the log."""


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        ok: whether the value is right; None where there is no right answer.
    """

    name: str
    value: Any
    ok: bool | None = None


@dataclass(frozen=True)
class Check:
    """A function of a module here.

    Attributes:
        seconds: its time limit.
        beside: whether it runs at the same time as neighbours with this mark; it measures no time.
    """

    module: str
    seconds: float
    beside: bool = False


CHECKS = {
    "environment": Check("machine", 60),
    "ceilings": Check("machine", 40),
    "numerics": Check("numerics", 90),
    "samples": Check("numerics", 40),
    "compilation": Check("speed", 150, beside=True),
    "bits": Check("bits", 150, beside=True),
    "syncs": Check("syncs", 60),
    "speed": Check("speed", 120),
    "sampling": Check("sampling", 80),
    "networks": Check("sampling", 50),
    "checkpoints": Check("states", 60),
    "memory": Check("states", 40),
    "ranks": Check("ranks", 90),
    "side_by_side": Check("ranks", 60),
}
"""The checks in their order; each is the function of its name."""


def command(at: Any, module: str, function: str, *words: object) -> list[str]:
    """The words that run ``function(at, *words)`` of a module here in another process."""
    tiny = ["--tiny"] if at.tiny else []
    here = [f"{module}.{function}", *map(str, words)]
    return [sys.executable, str(SCRIPT), "--device", at.device, *tiny, "--here", *here]


def run_here(name: str, words: Sequence[str], device: str, tiny: bool) -> None:
    """Run a function of a module here in this process, and print its rows."""
    from gpu_checks.bench import Bench

    module, _, function = name.partition(".")
    found = getattr(importlib.import_module(f"gpu_checks.{module}"), function)
    try:
        for row in found(Bench(device, tiny), *words) or ():
            print(MARK + json.dumps(asdict(row), default=str), flush=True)
    except Exception as error:
        traceback.print_exc()
        row = Row(type(error).__name__, str(error)[:200], ok=False)
        print(MARK + json.dumps(asdict(row)), flush=True)


def _run_forked(output: str, name: str, device: str, tiny: bool) -> None:
    os.setsid()  # its own group, to be killed with its children
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    run_here(name, (), device, tiny)
    sys.stdout.flush()


def rows_of(output: str) -> list[Row]:
    """The rows in the output of a process."""
    lines = output.splitlines()
    return [Row(**json.loads(line[len(MARK) :])) for line in lines if line.startswith(MARK)]


@dataclass
class _Running:
    """A running check, and the file of its output."""

    name: str
    process: ForkServerProcess
    output: IO[str]
    limit_s: float
    last: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that were printed since the last call."""
        while line := self.output.readline():
            if not line.endswith("\n") and self.process.is_alive():
                self.output.seek(self.output.tell() - len(line.encode()))
                return
            yield line


@dataclass
class Frame:
    """Runs checks one after the other; checks that measure no time run at the same time.

    Args:
        out: the folder of gpu.jsonl and gpu.log.
        seconds: no check begins later than this.
        patience: a factor on the checks' limits.
    """

    device: str
    tiny: bool
    out: Path
    seconds: float
    patience: float
    rows: int = 0
    failed: int = 0

    def run(self, names: Sequence[str]) -> int:
        """Run the checks; return the exit status: 1 when a row fails or no time is left."""
        began = time.monotonic()
        self.out.mkdir(parents=True, exist_ok=True)
        os.environ["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), str(SCRIPT.parent), os.environ.get("PYTHONPATH", "")]
        )
        if self.tiny:  # in small products, more threads only wait for each other
            os.environ.setdefault("OMP_NUM_THREADS", "1")
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload([f"gpu_checks.{check.module}" for check in CHECKS.values()])
        with (
            (self.out / "gpu.jsonl").open("w") as kept,
            (self.out / "gpu.log").open("w") as log,
            tempfile.TemporaryDirectory() as folder,
        ):
            for group in _groups([name for name in CHECKS if name in names]):
                left = self.seconds - (time.monotonic() - began)
                running = []
                for name in group:
                    if left <= 0:
                        self._show(name, Row("not begun", "no time is left", ok=False), kept)
                        continue
                    limit = min(CHECKS[name].seconds * self.patience, left)
                    output = Path(folder) / name
                    output.touch()
                    place = f"{CHECKS[name].module}.{name}"
                    given = (str(output), place, self.device, self.tiny)
                    process = forks.Process(target=_run_forked, args=given)
                    process.start()
                    running.append(_Running(name, process, output.open(errors="replace"), limit))
                while running:
                    running = [one for one in running if not self._followed(one, kept, log)]
                    time.sleep(0.1)
        print(f"{self.rows} rows, {self.failed} failed, {time.monotonic() - began:.0f} s")
        return int(self.failed > 0)

    def _followed(self, one: _Running, kept: IO[str], log: IO[str]) -> bool:
        """Show the new output of a check; return whether it has ended."""
        late = one.seconds > one.limit_s
        if late and one.process.is_alive():
            try:
                os.killpg(one.process.pid or 0, signal.SIGKILL)
            except ProcessLookupError:  # it has not made its group yet
                one.process.kill()
            one.process.join()
        ended = not one.process.is_alive()
        for line in one.lines():
            if line.startswith(MARK):
                self._show(one.name, rows_of(line)[0], kept)
            else:
                log.write(f"{one.name}: {line}")
                one.last = line.strip() or one.last
        if ended:
            if status := one.process.exitcode:
                why = f"stopped after {one.seconds:.0f} s" if late else f"{status}: {one.last}"
                self._show(one.name, Row("ended", why[:200], ok=False), kept)
            print(f"{one.name:14} {one.seconds:.0f} s", flush=True)
            one.output.close()
        return ended

    def _show(self, check: str, row: Row, kept: IO[str]) -> None:
        verdict = {None: "", True: "ok", False: "FAIL"}[row.ok]
        print(f"{check:14} {row.name:44} {shown(row.value)}  {verdict}".rstrip(), flush=True)
        kept.write(json.dumps({"check": check, **asdict(row)}, default=str) + "\n")
        kept.flush()
        self.rows += 1
        self.failed += row.ok is False


def _groups(names: Sequence[str]) -> Iterator[list[str]]:
    group: list[str] = []
    for name in names:
        if group and not (CHECKS[name].beside and CHECKS[group[-1]].beside):
            yield group
            group = []
        group.append(name)
    if group:
        yield group


def shown(value: Any) -> str:
    """A value for a person: four digits of each number."""
    match value:
        case bool() | None | str():
            return str(value)
        case dict():
            return "  ".join(f"{key} {shown(one)}" for key, one in value.items())
        case list() | tuple():
            return ", ".join(map(shown, value))
        case _:
            return f"{value:.4g}"
