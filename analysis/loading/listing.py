"""The runs of a study, from study.json or, without it, from the folders' names."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mpdit.errors import ConfigError, nearest


class Entry(BaseModel):
    """One run as study.json lists it."""

    model_config = ConfigDict(extra="ignore")
    name: str
    id: str = ""
    variant: str
    named: str | None = None
    seed: int = 0  # older entries of dropped runs may lack it
    axes: dict[str, Any] = {}
    tune: dict[str, Any] = {}
    parameters: int | None = None
    steps: int | None = None
    in_grid: bool = True
    needed: bool = True


class Listing(BaseModel):
    """The content of study.json: the runs in grid order, and the grid's decision settings."""

    model_config = ConfigDict(extra="ignore")
    study: str
    runs: list[Entry]
    description: str = ""
    grid: str = ""
    sets: list[str] = Field(default=[], alias="set")
    decisions: dict[str, Any] = {}


def read_listing(path: Path) -> Listing:
    """Return the study's name, its runs and its decision settings.

    Raises:
        ConfigError: when ``path`` is not a folder of runs, or its study.json is damaged.
    """
    if not path.is_dir():
        raise ConfigError(f"there is no folder {path}.{_nearest_folder(path)}")
    if (path / "config.yaml").is_file():
        raise ConfigError(f"{path} is a run, not a study: give its folder, {path.parent}")
    file = path / "study.json"
    try:
        listing = Listing.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        listing = Listing(study=path.resolve().name, runs=_folders(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{file} is damaged: {key or 'the file'}: {first['msg']}") from None
    for name, count in Counter(entry.name for entry in listing.runs).items():
        if name in ("", ".", "..") or "/" in name:
            raise ConfigError(f"{file}: the run {name!r} would lie outside the study")
        if count > 1:
            raise ConfigError(f"{file} is damaged: it lists the run {name!r} {count} times")
    if not any(entry.in_grid for entry in listing.runs):
        raise ConfigError(
            f"{path} holds no runs: neither a study.json that lists any, "
            f"nor a folder with a config.yaml{_nearest_below(path)}"
        )
    return listing


def _folders(path: Path) -> list[Entry]:
    """Return entries with variant and seed from folder names, ``<variant>_s<seed>-<id>``."""
    found = []
    for config in path.glob("*/config.yaml"):
        name = config.parent.name
        match = re.fullmatch(r"(.+)_s(\d+)-([0-9a-f]{12}|[0-9a-f]{8})", name)
        variant, seed, run_id = match.groups() if match else (name, 0, "")
        found.append(Entry(name=name, id=run_id, variant=variant, seed=int(seed)))
    found.sort(key=lambda entry: (entry.variant, entry.seed, entry.name))
    labels = Counter((entry.variant, entry.seed) for entry in found)
    # Points of a tune axis have the same label, and the names do not tell them apart.
    return [
        entry.model_copy(update={"variant": entry.name})
        if labels[entry.variant, entry.seed] > 1
        else entry
        for entry in found
    ]


def study_folder(word: str | Path, results: Path = Path("results")) -> Path:
    """Return the study's folder ``word``, or the folder of the study with this name.

    Another folder with the study's name, such as the images that it is trained on, is passed over.
    """
    path = Path(word)
    named = results / path
    if path.name == str(word) and not holds_runs(path) and (holds_runs(named) or not path.exists()):
        return named if named.is_dir() else path
    return path


def holds_runs(path: Path) -> bool:
    """Whether a folder is a study, a published summary, a run, or any folder of runs."""
    files = ("study.json", "published.json", "config.yaml")
    return any((path / file).is_file() for file in files) or any(path.glob("*/config.yaml"))


def _nearest_folder(path: Path) -> str:
    """Return a hint: the study beside ``path`` or under results/ with the nearest name."""
    for parent in (path.parent, Path("results")):
        if parent.is_dir():
            known = [str(p) for p in sorted(parent.iterdir()) if p.is_dir() and holds_runs(p)]
            if hint := nearest(str(parent / path.name), known):
                return hint
    return ""


def _nearest_below(path: Path) -> str:
    studies = sorted(str(file.parent) for file in path.glob("*/study.json"))
    return f". Did you mean {', '.join(studies[:3])}?" if studies else ""
