"""The run directory: the contract between the science that writes it and everything that reads it.

``results/<study>/<run>/`` holds

==================  ===============================================================================
config.yaml         the resolved config
extensions/         copies of the user's extensions that the run uses, which it executes
provenance.json     code version and diff, packages, host, device, threads; one entry a start
state.json          stage, step, heartbeat; replaced atomically
log.txt             what the run said
metrics.jsonl       step, loss, mse, vlb, grad_norm, learning_rate, images_per_s, memory_mb,
                    seconds, mfu (share of the devices' peak FLOP/s, where that is known)
tensorboard/        the same as events, where train.tensorboard is set
magnitudes.jsonl    the probe: step, site (mpdit.training.probe), blocks (one magnitude a block)
model.json          parameters in all and by part, forward FLOPs of one image
checkpoints/, ema/  resumable state; EMA snapshots as safetensors
samples/            samples.npz (arr_0: uint8 N,H,W,C; arr_1: labels), grid.png; other sets as
                    NAME.npz, NAME.png; NAME.shards/ while a set is drawn
evaluation.jsonl    one row a number; a run is done when its first row is there
lock                the process that is executing the run, which holds it (see ``lease``)
==================  ===============================================================================

Writes are atomic, or append-only with a torn last line tolerated by the readers. Checkpoints,
snapshots, sample sets, features and rows of evaluation.jsonl name the run and the data that they
belong to (see ``identity``).
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from mpdit import extensions
from mpdit.config import RunConfig, read_run
from mpdit.disk import lease as leases
from mpdit.disk.lease import Lease
from mpdit.errors import ConfigError, nearest
from mpdit.extensions import Extension

log = logging.getLogger("mpdit")

STAGES = ("train", "sample", "evaluate", "done")

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BUSY = 75  # sysexits' EX_TEMPFAIL: another process holds the run
EXIT_INTERRUPTED = 85  # stopped by a signal with its state kept; the same command goes on


@dataclass(frozen=True)
class RunState:
    """What a run last said of itself: times in Unix seconds, eta in seconds, rate in images/s."""

    stage: str = "train"
    step: int = 0
    steps: int = 0
    heartbeat: float = 0.0
    started: float = 0.0
    rate: float | None = None
    eta: float | None = None
    loss: float | None = None
    host: str = ""
    pid: int = 0
    job: str | None = None
    error: str | None = None
    """The last line of the exception that ended it."""
    stopped: str | None = None
    """The signal that ended it with its state kept."""


@dataclass(frozen=True)
class RunDir:
    """One run's folder."""

    path: Path

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

    def write_config(self, config: RunConfig) -> None:
        """Make the folder, its config.yaml, and its copies of the extensions that it uses."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_extensions(self.path, config.extensions)
        text = yaml.dump(config.resolved(), Dumper=_SafeDumper, sort_keys=False)
        write_atomic(self.path / "config.yaml", text)

    def config(self) -> RunConfig:
        """The run's config.

        Raises:
            ConfigError: when there is none, or it is not one.
        """
        file = self.path / "config.yaml"
        try:
            tree = parse_yaml(file.read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"{self.path} is no run directory: it has no config.yaml") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read {file}: {error}") from None
        except yaml.YAMLError as error:
            raise ConfigError(f"{file} is not YAML: {error}") from None
        try:
            return read_run(tree)
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None

    def load(self) -> RunConfig:
        """The run's config, to work on the run: the extensions that it uses are executed.

        Raises:
            ConfigError: as `config`; when a copy is missing or was changed, or fails.
        """
        config = self.config()
        extensions.load_copies(self.path, config.extensions)
        return config

    def state(self) -> RunState | None:
        """The last state written; None before the first, or with a warning when it is damaged."""
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
        """Whether its evaluation is there: at least one whole row."""
        try:
            with (self.path / "evaluation.jsonl").open("rb") as file:
                return file.readline().endswith(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError as error:  # another user's
            warn_once(f"{error.filename} cannot be read ({error.strerror}); it counts as absent")
            return False

    def is_leased(self) -> bool:
        """Whether a living process on a host that shares this file system's locks executes it."""
        return leases.is_held(self.path)

    def lease(self) -> AbstractContextManager[Lease]:
        """Own the run; the kernel lets go of it however the process ends.

        Raises:
            BusyError: when it is another process's.
        """
        return leases.take(self.path)


_ID = re.compile(r".*-([0-9a-f]{12}|[0-9a-f]{8})")


def id_in(name: str) -> str | None:
    """The id at the end of a run folder's name: of twelve digits, or, in version 0.1, the first
    eight of them."""
    match = _ID.fullmatch(name)
    return match[1] if match else None


def find_run(word: str, results: Path) -> RunDir:
    """A run's folder, or the name, the id or the beginning of the name of one in any study.

    Raises:
        ConfigError: when there is none, or more than one.
    """
    path = Path(word)
    if (path / "config.yaml").is_file():
        return RunDir(path.resolve())
    runs = [file.parent for file in results.glob("*/*/config.yaml")]
    last = path.name
    exact = [run for run in runs if last == run.name or (id_in(run.name) or "").startswith(last)]
    found = exact or [run for run in runs if run.name.startswith(last)]
    if len(found) == 1:
        return RunDir(found[0])
    if found:
        listed = ", ".join(str(run) for run in found[:4]) + (", …" if len(found) > 4 else "")
        raise ConfigError(f"{word!r} could be any of {len(found)} runs: {listed}")
    raise ConfigError(
        f"there is no run {word!r} under {results}.{nearest(last, [run.name for run in runs])}"
    )


def parse_yaml(text: str) -> Any:
    """What a YAML file holds.

    Raises:
        yaml.YAMLError: when it is none.
    """
    return yaml.load(text, Loader=_SafeLoader)


class _SafeLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """libyaml's, where PyYAML has it: ten times faster."""


class _SafeDumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """libyaml's, likewise."""


_STATE = TypeAdapter(RunState)


@cache
def warn_once(message: str) -> None:
    """Log a warning the first time that this process has it: readers look again and again."""
    log.warning(message)


def write_extensions(folder: Path, used: Iterable[Extension]) -> None:
    """Write the copies that a run or a study keeps of extensions."""
    for extension in used:
        file = extensions.copy_file(folder, extension)
        file.parent.mkdir(exist_ok=True)
        write_atomic(file, extensions.source_of(extension))


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``file``, waiting for it."""
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def written_aside(file: Path, *, sync: bool = True) -> Iterator[Path]:
    """A path to write to, which becomes ``file`` when all went well.

    A reader sees the old or the new content and never a part; with ``sync``, so does one after a
    power failure.

    Raises:
        OSError: of the writing, naming ``file``; what was there before is untouched.
        LeaseLostError: likewise, when the file is in a run that this process has lost.
    """
    temporary = leases.aside(file)
    with _naming(file):
        try:
            yield temporary
            if sync:
                sync_path(temporary)
            leases.check(file)
            temporary.replace(file)
            if sync:
                sync_path(file.parent)
        except (OSError, leases.LeaseLostError):
            temporary.unlink(missing_ok=True)
            leases.check(file)  # an orphan's errors are due to what the new owner does
            raise


def write_atomic(file: Path, content: str | bytes) -> None:
    """Replace ``file``, so that a reader sees the old or the new content and never a part."""
    with written_aside(file, sync=False) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def sync_path(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_row(file: Path, row: dict[str, Any]) -> None:
    """Append one JSON line; a torn last line, left by a write that broke off, is dropped first.

    Raises:
        OSError: naming the file.
        LeaseLostError: when it is in a run that this process has lost.
    """
    with _naming(file), file.open("a+b") as handle:
        leases.check(file)
        end = handle.seek(0, os.SEEK_END)
        if end and (handle.seek(end - 1), handle.read(1))[1] != b"\n":
            handle.seek(0)
            handle.truncate(handle.read().rfind(b"\n") + 1)
        handle.write(json.dumps(row).encode() + b"\n")


@contextmanager
def _naming(file: Path) -> Iterator[None]:
    """Put the file's name into an OSError: a write that fails has none."""
    try:
        yield
    except OSError as error:
        error.filename = str(file)
        raise


def say(error: ConfigError | OSError) -> int:
    """Print a command's error in one message; the exit status that goes with it."""
    text = explain_os_error(error) if isinstance(error, OSError) else str(error)
    print(f"error: {text}", file=sys.stderr)
    return EXIT_FAILED if isinstance(error, OSError) else EXIT_USAGE


def explain_os_error(error: OSError) -> str:
    """One message; where there was no room, with the room there is."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or not error.filename:
        return str(error)
    free = shutil.disk_usage(Path(error.filename).parent).free / 1e6
    return (
        f"no room to write {error.filename} ({error.strerror}): {free:,.1f} MB are free there. "
        "What was saved before is kept; with room again, the same command goes on"
    )


def read_rows(file: Path) -> list[dict[str, Any]]:
    """All whole rows of a JSON-lines file, without a torn last line; none when it is missing.

    Lines that are damaged are left out with a warning.
    """
    rows, damaged = scan_rows(file)
    if damaged:
        warn_once(f"{file}: {said_of(damaged)} damaged and counted as absent")
    return rows


def scan_rows(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """The whole rows of a JSON-lines file, and the numbers of the lines that are none."""
    try:
        text = file.read_bytes()
    except FileNotFoundError:
        return [], []
    rows, damaged = [], []
    for number, line in enumerate(text[: text.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            damaged.append(number)
    return rows, damaged


def said_of(damaged: list[int]) -> str:
    """``line 3 is``, ``lines 3, 7, 8 and 12 more are``."""
    if len(damaged) == 1:
        return f"line {damaged[0]} is"
    more = f" and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    return f"lines {', '.join(map(str, damaged[:3]))}{more} are"


def keep_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace the rows of a JSON-lines file (after a resume: without those past its step)."""
    with written_aside(file) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
