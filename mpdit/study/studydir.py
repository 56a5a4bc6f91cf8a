"""The study folder ``results/<study>/``: its files, its runs, and the claims on them.

==================  ===============================================================================
grid.yaml           the grid as it was last submitted
extensions/         copies of the extensions that it names
study.json          its runs in the grid's order, then runs on disk that the grid no longer has
<run>/              one folder a run (see ``rundir``)
held.txt            the runs that do not start until they are released (see ``holds``)
.code/<hash>/       a snapshot of the code that runs execute (see ``codesnapshot``)
.lock               held (flock) by whoever changes any of these
.jobs/*.jsonl       one claim a submission, and beside it a folder (see ``claims``)
.jobs/*.notice/     the same folder for the small job that follows a submission
.waiting.json       the runs that wait for room in Slurm (see ``waiting``)
==================  ===============================================================================
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import IO, Any, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from mpdit.config import DEFAULTS
from mpdit.disk import lease as leases
from mpdit.disk import links
from mpdit.disk.files import (
    append_row,
    locked,
    make_folder,
    warn_once,
    write_atomic,
)
from mpdit.disk.jsontext import parse_json
from mpdit.disk.rundir import RunDir, id_in, write_extensions
from mpdit.errors import ConfigError, nearest
from mpdit.grid.plan import Plan, PlannedRun
from mpdit.study.claims import Claim, fits, read_claim
from mpdit.text import count

NOTICE = ".notice"
REMEDY = "Delete it and submit the grid again, which writes it anew"
OLD_DIGITS = 8
"""Digits of a run's id in version 0.1."""


@dataclass(frozen=True)
class StudyDir:
    """One study's folder."""

    path: Path

    def __post_init__(self) -> None:
        links.guard(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def grid_file(self) -> Path:
        return self.path / "grid.yaml"

    @property
    def jobs(self) -> Path:
        return self.path / ".jobs"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the study's lock: no other process plans, claims or renames here meanwhile.

        Raises:
            ConfigError: when the lock or the claims' folder is a link (`mpdit.disk.links`).
        """
        links.check(self.jobs)
        with locked(self.path / ".lock"):
            yield

    @cached_property
    def table(self) -> dict[str, Any]:
        """The content of study.json.

        Raises:
            ConfigError: when there is none.
        """
        file = self.path / "study.json"
        try:
            data = parse_json(file.read_bytes())
        except FileNotFoundError:
            raise ConfigError(f"{self.path} is not a study: it has no study.json") from None
        except ValueError as error:
            raise ConfigError(f"{file} is damaged: {error}. {REMEDY}") from None
        if not isinstance(data, dict) or not isinstance(data.get("runs"), list):
            raise ConfigError(f"{file} is damaged: it lists no runs. {REMEDY}")
        if not fits(_HEAD, data):
            raise ConfigError(f"{file} is damaged: bad 'grid' or 'set'. {REMEDY}")
        whole = [entry for entry in data["runs"] if fits(_ENTRY, entry)]
        if damaged := len(data["runs"]) - len(whole):
            warn_once(f"{file}: {count(damaged, 'run')} damaged and counted as absent. {REMEDY}")
        return {**data, "runs": whole}

    @property
    def entries(self) -> list[dict[str, Any]]:
        """study.json's runs."""
        return list(self.table["runs"])

    @property
    def is_staged(self) -> bool:
        """Whether results decide which runs come next."""
        said = self.table.get("decisions") or {}
        return bool(said.get("looks") or said.get("tuning"))

    @property
    def grid_name(self) -> str:
        """The grid file that was last submitted."""
        return str(self.table.get("grid", self.grid_file))

    @property
    def defaults(self) -> int:
        """The version of the defaults (`mpdit.config.DEFAULTS`) that the study began with."""
        there = (self.path / "study.json").exists()
        version = self.table.get("defaults", 1) if there else DEFAULTS
        if type(version) is not int:
            raise ConfigError(f"{self.path / 'study.json'} is damaged: bad 'defaults'. {REMEDY}")
        return version

    def compare(self, plan: Plan) -> tuple[list[str], list[str]]:
        """The runs that the grid has gained since its last submission, and the runs it has lost.

        Before the first submission no run is new. A staged grid's runs are not new until needed.
        """
        try:
            listed = [entry for entry in self.entries if entry.get("in_grid", True)]
        except ConfigError:
            return [], []
        before = {entry["id"]: entry["name"] for entry in listed}
        fresh = () if plan.grid.is_staged else plan.runs
        new = [r.name for r in fresh if before.keys().isdisjoint((r.id, r.id[:OLD_DIGITS]))]
        now = {known for run in plan.runs for known in (run.id, run.id[:OLD_DIGITS])}
        return new, [name for run_id, name in before.items() if run_id not in now]

    def run(self, name: str) -> RunDir:
        return RunDir(self.path / name)

    def folders(self) -> dict[str, str]:
        """Run id → the name of its folder, whatever its readable part."""
        folders = (entry.name for entry in os.scandir(self.path) if entry.is_dir())
        return {run_id: name for name in folders if (run_id := id_in(name)) is not None}

    def places(self, runs: Iterable[PlannedRun]) -> dict[str, str]:
        """Run id → the name of its folder, for runs that have one, whatever its readable part."""
        folders = self.folders()
        found = {}
        for run in runs:
            name = folders.get(run.id) or folders.get(run.id[:OLD_DIGITS])
            if name is not None and self._is_of(name, run):
                found[run.id] = name
        return found

    def _is_of(self, name: str, run: PlannedRun) -> bool:
        """Whether a folder is the run's: version 0.1's short ids may match another run too."""
        if name.endswith(run.id) or run.name.startswith(name):
            return True
        try:
            return self.run(name).config().id == run.id
        except ConfigError:
            return True

    def write_table(
        self, plan: Plan, file: str, possible: Sequence[PlannedRun] = ()
    ) -> dict[str, str]:
        """Write grid.yaml, its extensions and study.json.

        An existing folder keeps its name. A folder stays listed when the grid no longer has its
        run, or when the results of a staged grid have made the run unnecessary.

        Args:
            possible: all runs that a staged grid may need.

        Returns:
            run id → the name of its folder.
        """
        places = self.places(plan.runs)
        names = {run.id: places.get(run.id, run.name) for run in plan.runs}
        old: dict[str, dict[str, Any]] = {}
        with suppress(ConfigError):
            old = {entry["name"]: entry for entry in StudyDir(self.path).entries}
        rows = [_entry(run, names[run.id]) for run in plan.runs]
        others = {run.id: run for run in possible if run.id not in names}
        unneeded = self.places(others.values()) if others else {}
        rows += [_entry(others[i], name) | {"needed": False} for i, name in unneeded.items()]
        for row in rows:
            if "submitted" in old.get(row["name"], {}):
                row["submitted"] = old[row["name"]]["submitted"]
        in_grid = {*names.values(), *unneeded.values()}
        for run_id, name in self.folders().items():
            if name not in in_grid and self.run(name).exists():
                before = old.get(name, {"variant": name.removesuffix(f"-{run_id}")})
                rows.append({**before, "name": name, "id": run_id, "in_grid": False})
        table = {
            "study": plan.study,
            "description": plan.grid.description,
            "grid": file,
            "set": list(plan.grid.set_texts),
            "defaults": plan.defaults,
            "decisions": asdict(plan.grid.declared),
            "runs": rows,
        }
        write_atomic(self.grid_file, plan.grid.text)
        write_extensions(self.path, plan.grid.extensions)
        write_atomic(self.path / "study.json", _one_row_a_line(table))
        return names

    def note_submitted(self, details: dict[str, dict[str, Any]]) -> None:
        """Record in study.json the details of runs' last submission. Call under the lock."""
        for entry in self.table["runs"]:
            if entry["name"] in details:
                entry["submitted"] = details[entry["name"]]
        write_atomic(self.path / "study.json", _one_row_a_line(self.table))

    # Claims --------------------------------------------------------------------------------------

    def new_claim(self, cluster: str, runs: list[str], **details: Any) -> tuple[Path, IO[bytes]]:
        """Create a claim on ``runs``; return its path and its locked file.

        A process that inherits the file holds a local claim.
        """
        make_folder(self.jobs)
        file = self.jobs / f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(4)}.jsonl"
        handle = file.open("xb")
        leases.lock(handle, fcntl.LOCK_EX)
        row = {"cluster": cluster, "host": socket.gethostname(), "runs": runs, **details}
        append_row(file, row)
        return file, handle

    def claims(self) -> list[Claim]:
        """The live claims."""
        return [claim for claim in self.all_claims() if claim.is_live]

    def all_claims(self) -> list[Claim]:
        """All claims, also those that are over and not deleted yet."""
        return [read_claim(file) for file in sorted(self.jobs.glob("*.jsonl"))]

    def drop_dead_claims(self) -> None:
        """Delete the claims that are over, with their logs, and the temporary files of killed
        processes. Call under the lock."""
        leases.sweep(self.path.glob(".*"))
        live = {claim.file.stem for claim in self.claims()}
        for entry in self.jobs.glob("*"):
            waits = entry.suffix == NOTICE and not any(entry.glob("*_result.pkl"))
            if entry.stem in live or waits:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)  # a task may be writing its last lines
            else:
                entry.unlink(missing_ok=True)


class _Listed(TypedDict):
    """The keys that every run in study.json has."""

    name: str
    id: str
    variant: str
    in_grid: NotRequired[bool]
    needed: NotRequired[bool]
    seed: NotRequired[int | None]
    steps: NotRequired[int]


class _Head(TypedDict, total=False):
    """The keys of study.json that describe its grid."""

    grid: str
    set: list[str]


_ENTRY, _HEAD = TypeAdapter(_Listed), TypeAdapter(_Head)


def _entry(run: PlannedRun, name: str) -> dict[str, Any]:
    return {
        **run.summary(),
        "name": name,
        "steps": run.config.train.steps,
        "in_grid": True,
    }


def _one_row_a_line(table: dict[str, Any]) -> str:
    """JSON that a person can read and diff: every run on its own line."""
    head = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in table.items()][:-1]
    runs = ",\n".join(f"  {json.dumps(run)}" for run in table["runs"])
    return "{" + ",\n".join(head) + ',\n"runs": [\n' + runs + "\n]}\n"


def find_study(word: str, results: Path) -> StudyDir:
    """A folder, or the name of one under ``results``.

    Raises:
        ConfigError: when it is neither, with the nearest name.
    """
    for path in (Path(word), results / word):
        if (path / "study.json").is_file():
            return StudyDir(path.resolve())
    known = [file.parent.name for file in results.glob("*/study.json")]
    if Path(word).is_dir():
        raise ConfigError(f"{word} is not a study: it has no study.json")
    there = f"Known: {', '.join(sorted(known))}." if known else f"There is none in {results}."
    raise ConfigError(f"there is no study {word!r}.{nearest(word, known)} {there}")
