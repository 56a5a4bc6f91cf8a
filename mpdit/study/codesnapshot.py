"""Snapshots of the code: runs execute the code that was submitted.

``results/<study>/.code/<hash>/`` holds the package, launch.py, and the modules beside them that
these or an extension import. Extensions themselves lie in each run's folder. A run's ``code.json``
names the code that it executes: a snapshot, ``{"code": ".code/<hash>"}``, or the checkout of a
submission with ``--live-code``.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mpdit.disk import codefiles, links
from mpdit.disk.files import make_folder, write_atomic
from mpdit.disk.jsontext import parse_json
from mpdit.errors import ConfigError

FOLDER = ".code"
FILE = "code.json"
_REMEDY = "Restore the folder, or submit with --live-code to execute the present code"
MISSING = f"is missing: it holds the code of runs that have begun or were submitted. {_REMEDY}"
CHANGED = f"was changed: it holds the code of runs that have begun or were submitted. {_REMEDY}"


@dataclass(frozen=True)
class Codes:
    """The code of a submission and of its runs, as in their ``code.json``.

    Attributes:
        present: the code that the submission itself executes.
        given: run → its code.
        before: run → the code of its last submission, for runs that were submitted before.
    """

    present: str
    given: Mapping[str, str] = field(default_factory=dict)
    before: Mapping[str, str] = field(default_factory=dict)


def assign(
    study: Path,
    runs: Collection[str],
    resumed: Collection[str],
    extensions: Iterable[bytes],
    live: bool,
) -> Codes:
    """Give each run the present code, or to a resumed run the snapshot that it began with.

    Without runs, nothing is written. Call under the study's lock.

    Args:
        resumed: the runs that keep their snapshot.
        extensions: the contents of the study's extensions, which may import modules.
        live: take no snapshot; all runs execute the checkout as it is when they start.

    Raises:
        ConfigError: when the snapshot of a resumed run is missing or damaged.
        OSError: when the snapshot cannot be written.
    """
    files = {} if live else codefiles.code_files(extensions)
    present = _name(files)
    if runs and not live:
        take(study / present, files)
    before = {run: code for run in runs if (code := read(study / run))}
    kept = {run for run in resumed if is_snapshot(before.get(run, ""))} if not live else set()
    given = {run: before[run] if run in kept else present for run in runs}
    for code in {given[run] for run in kept}:
        check(study / code)
    for run, code in given.items():
        if before.get(run) != code:
            make_folder(study / run)
            write_atomic(study / run / FILE, json.dumps({"code": code}))
    return Codes(present, given, before)


def present_place(study: Path, extensions: Iterable[bytes], live: bool) -> Path | None:
    """The folder that `assign` would give the present code, as `place_of` returns it."""
    return place_of(study, _name({} if live else codefiles.code_files(extensions)))


def _name(files: codefiles.Files) -> str:
    """How runs name code: a snapshot's folder in the study, or the checkout without files."""
    return f"{FOLDER}/{codefiles.digest(files)}" if files else str(codefiles.ROOT)


def take(place: Path, files: codefiles.Files) -> None:
    """Write a snapshot, unless it exists and is whole."""
    links.check(place)
    origin = json.dumps(codefiles.origin(files), indent=1)
    if _is_whole(place):
        # code that has been committed in the meantime is the same: the newest origin is kept
        if (place / codefiles.ORIGIN).read_text() != origin:
            write_atomic(place / codefiles.ORIGIN, origin)
        return
    aside = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    try:
        for name, content in {**files, codefiles.ORIGIN: origin.encode()}.items():
            file = aside / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if place.exists():
            damaged = place.rename(aside.with_suffix(".damaged"))
            shutil.rmtree(damaged, ignore_errors=True)
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)  # left by a full disk


def _is_whole(place: Path) -> bool:
    has_origin = (place / codefiles.ORIGIN).is_file()
    return has_origin and codefiles.digest(codefiles.tree(place)) == place.name


def check(place: Path) -> None:
    """Compare a snapshot's files with its name.

    Raises:
        ConfigError: when it is missing or was changed.
    """
    if not _is_whole(place):
        raise ConfigError(f"{place} {CHANGED if place.exists() else MISSING}")


def read(run: Path) -> str:
    """The code that a run's ``code.json`` names; '' where there is none, damaged or unreadable."""
    try:
        return str(parse_json((run / FILE).read_bytes())["code"])
    except (FileNotFoundError, PermissionError, ValueError, TypeError, KeyError):
        return ""


def is_snapshot(code: str) -> bool:
    return code.startswith(f"{FOLDER}/")


def place_of(study: Path, code: str) -> Path | None:
    """The folder of the code that a ``code.json`` names; None for none, and for pip's packages.

    The folder of pip's packages must not be in PYTHONPATH: it would precede the standard library.

    Raises:
        ConfigError: when PYTHONPATH cannot hold the folder's path.
    """
    place = study / code
    if not is_snapshot(code) and not (code and codefiles.is_checkout(place)):
        return None
    if os.pathsep in str(place):
        raise ConfigError(f"Python cannot import from {place}: its path has a {os.pathsep!r}")
    return place


def environment(place: Path | None) -> dict[str, str]:
    """The variables with which any Python process imports mpdit from a folder, and nowhere else.

    PYTHONPATH comes before installed packages, editable ones too; PYTHONSAFEPATH keeps the current
    folder, which may be another checkout, from coming before it.
    """
    if place is None:
        return {}
    paths = (str(place), os.environ.get("PYTHONPATH"))
    return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONSAFEPATH": "1"}


def shell_commands(place: Path | None) -> list[str]:
    """The same as commands of a POSIX shell, with a message where the folder is missing.

    A job executes them after everything that the site or the user sets.
    """
    if place is None:
        return []
    folder, message = shlex.quote(str(place)), shlex.quote(f"error: {place} {MISSING}")
    return [
        f"[ -d {folder} ] || {{ echo {message} >&2; exit 1; }}",
        f'export PYTHONPATH={folder}"${{PYTHONPATH:+:$PYTHONPATH}}" PYTHONSAFEPATH=1',
    ]


def run_environment(run: Path) -> dict[str, str]:
    """The `environment` of a run.

    Raises:
        ConfigError: when its snapshot is missing or was changed.
    """
    code = read(run)
    if is_snapshot(code):
        check(run.parent / code)
    return environment(place_of(run.parent, code))


def without(variables: Mapping[str, str]) -> dict[str, str]:
    """A process's variables without those of `environment`, for a user's own command."""
    left = {name: value for name, value in variables.items() if name != "PYTHONSAFEPATH"}
    paths = left.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [path for path in paths if path and Path(path).parent.name != FOLDER]
    return {**left, "PYTHONPATH": os.pathsep.join(kept)} if kept else left
