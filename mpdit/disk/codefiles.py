"""The code that a run executes: its files, their hash, and where they come from.

A snapshot (`mpdit.study.codesnapshot`) is a folder of these files, named by their hash. It has an
``origin.json`` beside them.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import mpdit

ROOT = Path(mpdit.__file__).parents[1]
"""The folder that this process imports mpdit from."""
ORIGIN = "origin.json"
DATA = "evaluation/extractors/*.safetensors"
"""The files of the package that are not Python."""
LAUNCH = "launch.py"
NOT_EXECUTED = (LAUNCH, "mpdit/commandline/", "mpdit/grid/", "mpdit/study/")
"""Files on which no number depends: in a run they only parse the command line."""

Files = Mapping[str, bytes]
"""Path below the root → content."""


def code_files(extensions: Iterable[bytes] = (), root: Path = ROOT) -> dict[str, bytes]:
    """Read the package, and from a checkout launch.py and the modules that any of these import.

    Files are found on disk and not in git, which would miss the new ones. Other files of the
    checkout are never read, however large they are.

    Args:
        extensions: the contents of a study's extensions, which may import modules too.
    """
    package = root / "mpdit"
    modules = (path for path in package.rglob("*.py") if path.stem.isidentifier())
    paths = sorted([*modules, *package.glob(DATA)])
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    if is_checkout(root):
        files[LAUNCH] = (root / LAUNCH).read_bytes()
        sources = [*files.items(), *(("", text) for text in extensions)]
        files |= _local_modules(root, sources)
    return files


def is_checkout(root: Path) -> bool:
    """Whether a folder is a checkout or a snapshot of one, and not pip's folder of packages."""
    return (root / LAUNCH).is_file()


def is_snapshot(root: Path = ROOT) -> bool:
    """Whether a folder is a snapshot."""
    return (root / ORIGIN).is_file()


def tree(folder: Path) -> dict[str, bytes]:
    """Read the files of a snapshot, without those that Python adds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path for path in files}
    return {
        name: path.read_bytes()
        for name, path in found.items()
        if "__pycache__" not in path.parts and name != ORIGIN
    }


def digest(files: Files) -> str:
    """Return a hash of names and contents, as twelve hex digits."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return whole.hexdigest()[:12]


def executed(files: Files) -> dict[str, bytes]:
    """Return the files that a run's numbers can depend on."""
    return {name: text for name, text in files.items() if not name.startswith(NOT_EXECUTED)}


def origin(files: Files, root: Path = ROOT) -> dict[str, Any]:
    """Return where the files come from; values are None or empty where git does not know them.

    Returns:
        ``checkout`` (the folder), ``commit``, ``diff`` (of tracked files against the commit),
        ``untracked`` (path → SHA-256 of the files that the commit and the diff lack) and
        ``submodules`` (path → commit). For a snapshot, the values recorded when it was made.
    """
    if is_snapshot(root):
        recorded: dict[str, Any] = json.loads((root / ORIGIN).read_bytes())
        return recorded
    paths = ["mpdit", *(name for name in files if not name.startswith("mpdit/"))]
    tracked = set(_git(root, "ls-files", "-z", "--recurse-submodules", "--", *paths).split("\0"))
    commit, diff, untracked, submodules = None, "", {}, {}
    if "mpdit/__init__.py" in tracked:  # else git answers for a repository around it
        commit = _git(root, "rev-parse", "HEAD").strip() or None
        options = ("--no-ext-diff", "--no-color", "--binary", "--submodule=diff")
        diff = _git(root, "diff", *options, "HEAD", "--", *paths)
        untracked = {
            name: hashlib.sha256(text).hexdigest()
            for name, text in files.items()
            if name not in tracked
        }
        if (root / ".gitmodules").exists():
            lines = _git(root, "submodule", "status", "--recursive").splitlines()
            submodules = {line.split()[1]: line.split()[0].lstrip("+U") for line in lines}
    return {
        "checkout": str(root),
        "commit": commit,
        "diff": diff,
        "untracked": untracked,
        "submodules": submodules,
    }


_IMPORT = re.compile(rb"^\s*(?:from|import)\s.*", re.MULTILINE)


def _git(root: Path, *words: str) -> str:
    """What git prints; '' where there is no git, or it fails."""
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""


def _local_modules(root: Path, sources: list[tuple[str, bytes]]) -> dict[str, bytes]:
    """The modules beside the package that the sources import, and what these import in turn."""
    beside = (entry for entry in os.scandir(root) if entry.name not in ("mpdit", LAUNCH))
    names = {name for entry in beside if (name := entry.name.removesuffix(".py")).isidentifier()}
    # parsing every file takes ten times as long as looking for the names first
    mentioned = re.compile(rf"\b(?:{'|'.join(names)})\b".encode()) if names else None
    found: dict[str, bytes] = {}
    while mentioned and sources:
        path, source = sources.pop()
        if path not in found and not any(map(mentioned.search, _IMPORT.findall(source))):
            continue
        for module in _imports(path, source):
            for name in (f"{module}.py", f"{module}/__init__.py"):
                known = name in found or name == LAUNCH or name.startswith("mpdit/")
                if not known and (root / name).is_file():
                    found[name] = (root / name).read_bytes()
                    sources.append((name, found[name]))
    return found


def _imports(path: str, source: bytes) -> Iterator[str]:
    """The paths, without ending, of all modules that a source may import, with their packages."""
    try:
        nodes = ast.walk(ast.parse(source))
    except (SyntaxError, ValueError):
        return  # reported with its line when the file is executed
    for node in nodes:
        modules: list[str] = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = path.split("/")[: -node.level] if node.level else []
            inside = ".".join((*above, *filter(None, (node.module,))))
            modules = [f"{inside}.{alias.name}" for alias in node.names]
        for module in modules:
            parts = module.split(".")
            yield from ("/".join(parts[: end + 1]) for end in range(len(parts)))
