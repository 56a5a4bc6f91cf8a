"""The run directory: the contract between the science that writes it and everything that reads it.

``results/<study>/<run>/`` holds

==================  ===============================================================================
config.yaml         the resolved config
extensions/         copies of the user's extensions that the run uses, which it executes
code.json           the snapshot of the code that it executes (see mpdit.study.codesnapshot)
provenance.json     code version and diff, packages, host, device, threads; one entry a start
state.json          stage, step, heartbeat; replaced atomically
log.txt             the run's messages
metrics.jsonl       step, loss, mse, vlb, grad_norm, learning_rate, images_per_s, memory_mb,
                    seconds, mfu (share of the devices' peak FLOP/s, where that is known)
track.json          which of these rows the tool of train.track has; beside it the tool's own
                    tensorboard/ or wandb/
magnitudes.jsonl    the probe: step, site (mpdit.training.probe), blocks (one magnitude a block)
model.json          parameters in all and by part, forward FLOPs of one image
classes.json        the classes' names by label, where the data has them
images.json         the number of images of each class that it is trained on
checkpoints/, ema/  resumable state; EMA snapshots as safetensors
samples/            samples.npz (arr_0: uint8 N,H,W,C; arr_1: labels), grid.png; other sets as
                    NAME.npz, NAME.png; NAME.shards/ while a set is drawn
evaluation.jsonl    one row a number; a run with a row is done
lock                names the process that executes the run, which holds it (see ``lease``)
==================  ===============================================================================

Writes are atomic, or append-only with a torn last line tolerated by the readers. Checkpoints,
snapshots, sample sets, features and rows of evaluation.jsonl name the run and the data that they
belong to (see ``identity``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from mpdit import extensions
from mpdit.config import RunConfig, read_run
from mpdit.disk import lease as leases
from mpdit.disk import links
from mpdit.disk.files import make_folder, warn_once, write_atomic, written_aside
from mpdit.disk.lease import Lease
from mpdit.disk.yamlfile import YamlText, parse, read_text
from mpdit.errors import ConfigError, nearest
from mpdit.extensions import Extension

PAPER, PUBLISHED = "paper", "published"
"""The folders of ``results/`` that `analysis` writes, which no study may be named after."""
STAGES = ("train", "sample", "evaluate", "done")


def share_done(stage: str, step: int, steps: int) -> float:
    """The fraction of a run that is done; training counts for nine tenths."""
    fraction = step / steps if steps else 0.0
    shares = {"train": 0.9 * fraction, "sample": 0.9 + 0.08 * fraction, "done": 1.0}
    return shares.get(stage, 0.98)


@dataclass(frozen=True)
class RunState:
    """A run's last report: times in Unix seconds, eta in seconds, rate in images/s."""

    stage: str = "train"
    step: int = 0
    steps: int = 0
    heartbeat: float = 0.0
    started: float = 0.0
    interruptions: int = 0
    """How often it was resumed after a process that ended without recording an error."""
    rate: float | None = None
    eta: float | None = None
    loss: float | None = None
    host: str = ""
    pid: int = 0
    job: str | None = None
    error: str | None = None
    """The last line of the exception that ended it."""
    stopped: str | None = None
    """The signal that stopped it; its state is kept."""

    @property
    def diverged(self) -> bool:
        """Whether its training or samples became NaN or infinite; a repetition would too."""
        return re.search(r"is (nan|-?inf) at step|not finite numbers", self.error or "") is not None


@dataclass(frozen=True)
class RunDir:
    """One run's folder."""

    path: Path

    def __post_init__(self) -> None:
        links.guard(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def ema(self) -> Path:
        return self.path / "ema"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    def exists(self) -> bool:
        """Whether the folder is a run's: it has a config.yaml, or must not be read."""
        try:
            return (self.path / "config.yaml").exists()
        except PermissionError:
            return True

    def class_names(self) -> list[str] | None:
        """The classes' names by label; None where the data has none."""
        try:
            return _NAMES.validate_json((self.path / "classes.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def images_by_class(self) -> tuple[int, ...] | None:
        """How many images of each class the run is trained on; None in runs of version 0.1."""
        try:
            return _COUNTS.validate_json((self.path / "images.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write_config(self, config: RunConfig, *, known_keys: bool = False) -> None:
        """Create the folder, its config.yaml, and its copies of the extensions that it uses.

        Args:
            known_keys: write only the keys that config.yaml already has, for older code.
        """
        make_folder(self.path)
        write_extensions(self.path, config.extensions)
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        tree = config.resolved()
        if known_keys:
            tree = _updated(read_config(self.path).tree, tree)
        text = yaml.dump(tree, Dumper=dumper, sort_keys=False)
        write_atomic(self.path / "config.yaml", text)

    def config(self) -> RunConfig:
        """Read the run's config.

        Raises:
            ConfigError: when there is no config, or it is not valid, with its line.
        """
        text = read_config(self.path)
        try:
            return read_run(text.tree)
        except ConfigError as error:
            raise text.error(tuple(error.key.split(".")), error.message) from None

    def load(self) -> RunConfig:
        """Read the run's config and execute the extensions that it uses.

        Raises:
            ConfigError: as `config`; when a copy of an extension is missing, changed, or fails.
        """
        config = self.config()
        extensions.load_copies(self.path, config.extensions)
        return config

    def state(self) -> RunState | None:
        """Return the last state written; None before the first, or when the file is damaged."""
        file = self.path / "state.json"
        try:
            content = file.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            warn_once(f"{file} cannot be read ({error.strerror}); it counts as absent")
            return None
        try:
            return _STATE.validate_json(content)
        except ValidationError:
            warn_once(f"{file} is damaged; it counts as absent")
            return None

    def write_state(self, state: RunState, *, sync: bool = False) -> None:
        """Replace state.json; with ``sync`` it survives a power failure."""
        with written_aside(self.path / "state.json", sync=sync) as temporary:
            temporary.write_text(json.dumps(asdict(state)))

    def is_done(self) -> bool:
        """Whether its evaluation has been written: at least one whole row."""
        try:
            with (self.path / "evaluation.jsonl").open("rb") as file:
                return file.readline().endswith(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError as error:  # another user's
            warn_once(f"{error.filename} cannot be read ({error.strerror}); it counts as absent")
            return False

    def is_leased(self) -> bool:
        """Whether a living process executes it, on a host that shares this file system's locks."""
        return leases.is_held(self.path)

    def lease(self) -> AbstractContextManager[Lease]:
        """Own the run. The kernel releases it, however the process ends.

        Raises:
            BusyError: when another process owns it.
        """
        return leases.take(self.path)


_ID = re.compile(r".*-([0-9a-f]{12}|[0-9a-f]{8})")


def id_in(name: str) -> str | None:
    """The id at the end of a run folder's name: twelve digits, or their first eight in version
    0.1."""
    match = _ID.fullmatch(name)
    return match[1] if match else None


def find_run(word: str, results: Path) -> RunDir:
    """Find a run by its folder, or by its name, its id or the beginning of its name.

    Args:
        word: may begin with its study, ``STUDY/RUN``.
        results: the folder of all studies; a name alone is searched in each study.

    Raises:
        ConfigError: when no run matches, or more than one.
    """
    path = Path(word)
    if (path / "config.yaml").is_file():
        return RunDir(path.resolve())
    last, study = path.name, path.parent
    found_in = [results.glob("*/*/config.yaml")]
    if study != Path():
        found_in = [folder.glob("*/config.yaml") for folder in (study, results / study)]
    # results itself may be the present folder, and both the same
    folders = {file.parent.resolve(): file.parent for files in found_in for file in files}
    runs = sorted(folders.values())
    exact = [run for run in runs if last == run.name or (id_in(run.name) or "").startswith(last)]
    found = exact or [run for run in runs if run.name.startswith(last)]
    if len(found) == 1:
        return RunDir(found[0])
    if found:
        listed = ", ".join(str(run) for run in found[:4]) + (", …" if len(found) > 4 else "")
        raise ConfigError(
            f"{word!r} could be any of {len(found)} runs: {listed}. Write STUDY/RUN, with more "
            "letters of the run's name; logs STUDY --only PATTERN prints several logs"
        )
    raise ConfigError(
        f"there is no run {word!r} under {results}.{nearest(last, [run.name for run in runs])}"
    )


def chosen_run(word: str, results: Path) -> RunDir:
    """The run that the user named: by its folder, or as in `find_run`.

    Raises:
        ConfigError: when neither a folder nor a run has this name.
    """
    path = Path(word)
    return RunDir(path) if path.exists() else find_run(word, results)


def read_config(folder: Path) -> YamlText:
    """Read the config.yaml in a run's folder without validating it.

    Raises:
        ConfigError: when there is none, or it is not YAML.
    """
    file = folder / "config.yaml"
    try:
        return parse(read_text(file), str(file), dumped=True)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder} is not a run directory: it has no config.yaml") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None


def _updated(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The old tree, with the values of the new tree."""
    return {
        key: _updated(value, new[key])
        if isinstance(value, dict) and isinstance(new.get(key), dict)
        else new.get(key, value)
        for key, value in old.items()
    }


_STATE, _NAMES = TypeAdapter(RunState), TypeAdapter(list[str])
_COUNTS = TypeAdapter(tuple[NonNegativeInt, ...])


def write_extensions(folder: Path, used: Iterable[Extension]) -> None:
    """Write the copies that a run or a study keeps of extensions."""
    for extension in used:
        file = extensions.copy_file(folder, extension)
        make_folder(file.parent)
        write_atomic(file, extensions.source_of(extension))
