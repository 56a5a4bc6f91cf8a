"""One run from start to end: ``python -m mpdit.run results/<study>/<run>``.

Train, sample, evaluate. Whatever ended it before, the same command resumes from what is on disk,
and comes to the same bits.
"""

from __future__ import annotations

from mpdit.runtime import signals

if __name__ == "__main__":
    signals.note()  # before torch is imported

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from mpdit.config import RunConfig
from mpdit.data.content import content_hash
from mpdit.data.datasets import check_available, class_names, images_by_class
from mpdit.data.preflight import check_evaluable
from mpdit.disk.files import write_atomic
from mpdit.disk.identity import RESTORE, Identity, same_id
from mpdit.disk.lease import BusyError, Lease, share
from mpdit.disk.rundir import RunDir, id_in
from mpdit.encoding.decoder import open_decoder
from mpdit.errors import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    command,
    explain_os_error,
)
from mpdit.evaluation import extractors, references
from mpdit.evaluation.evaluation import evaluate_run
from mpdit.flops import count_parameters, forward_flops
from mpdit.runtime.devices import prepare
from mpdit.runtime.distributed import World, join, leave
from mpdit.runtime.memory import keep_freed_memory
from mpdit.runtime.provenance import record_start
from mpdit.runtime.session import Interrupted, Session, log, open_session
from mpdit.sampling.sampler import sample_run, samples_file
from mpdit.training import checkpoint
from mpdit.training.meters import NonFiniteLossError
from mpdit.training.trainer import Trainer

LESS_MEMORY = (
    "To use less, set train.micro_batch_size, train.gradient_checkpointing or a smaller "
    "sample.batch_size, which change no run's identity"
)
PATIENCE_S = 30
"""An orphan notices within a heartbeat, once its step is over."""


def execute(run: RunDir) -> int:
    """Bring the run to its end.

    Returns:
        an exit status: done, failed (its state says why), busy elsewhere, or interrupted with its
        state kept.

    Raises:
        ConfigError: when the folder is not a run.
    """
    config = run.load()
    try:
        with join() as world:
            if world.largest(world.main and run.is_done()):
                if world.main:
                    print(f"{run.name} is done already", file=sys.stderr)
                return EXIT_DONE
            with _held(run, world) as lease, open_session(run, world.main) as session:
                return _guarded(config, session, world, lease)
    except BusyError as error:
        print(error, file=sys.stderr)
        return EXIT_BUSY


@contextmanager
def _held(run: RunDir, world: World) -> Iterator[Lease]:
    """The main process holds the run for all of them; all ask, before they write, whether it does.

    Raises:
        BusyError: when another process holds it, in every process.
    """
    lease: Lease | None = None
    busy: BusyError | None = None
    with ExitStack() as stack:
        if world.main:
            try:
                lease = stack.enter_context(run.lease())
            except BusyError as error:
                busy = error
        token = world.largest(lease.token if lease else 0)
        if not token:
            raise busy or BusyError(f"{run.name} is being executed elsewhere")
        yield lease or stack.enter_context(share(Lease(run.path, token)))


def _guarded(config: RunConfig, session: Session, world: World, lease: Lease) -> int:
    """Do the work, and leave in state.json how it ended.

    Raises:
        BusyError: when another process has taken over the run.
    """
    try:
        _outlive(lease, session)
        _work(config, session, world)
    except Exception as error:
        lease.check()  # an orphan's error is not the run's
        return _ended_by(error, session)
    session.end()
    return EXIT_DONE


def _ended_by(error: Exception, session: Session) -> int:
    """Record the error in state.json and return an exit status; raise an error of the code."""
    if isinstance(error, ConfigError | NonFiniteLossError | OSError | torch.OutOfMemoryError):
        message = explain_os_error(error) if isinstance(error, OSError) else str(error)
        if isinstance(error, torch.OutOfMemoryError):
            message = f"{message.rstrip('.')}. {LESS_MEMORY}"
        log.error("failed: %s", message)
        with suppress(OSError):  # a full disk takes no state either
            session.end(error=message)
        return EXIT_FAILED
    if not isinstance(error, Interrupted):
        if not session.stop_signal:
            if not session.main and (reason := _main_failed(session)):
                log.error("this process exits because the main process failed: %s", reason)
                return EXIT_FAILED
            session.end(error=f"{type(error).__name__}: {error}")
            raise error
        # Slurm sends its signal to all processes: it may have killed a compiler's
        log.warning("%s: %s", type(error).__name__, error)
        error = Interrupted(session.stop_signal)
    stage, step = session.state.stage, session.state.step
    log.info("stopped by %s at %s %d; the same command resumes", error, stage, step)
    session.end(stopped=str(error))
    return EXIT_INTERRUPTED


def _main_failed(session: Session) -> str | None:
    """Why the main process has ended, whose end the others meet as a lost connection."""
    said = session.run.state()
    # a new start has another beginning: what the one before has left is not meant
    return said.error if said is not None and said.heartbeat >= session.state.started else None


def _outlive(lease: Lease, session: Session) -> None:
    """Give an orphan, from which the run was taken over, the time to see it and end.

    Raises:
        Interrupted: when a signal asked to stop.
    """
    if lease.orphan is None:
        return
    log.warning("taken over from %s: waiting for its end", lease.orphan)
    end = time.monotonic() + PATIENCE_S
    while not lease.has_orphan_ended():
        if time.monotonic() > end:
            log.warning(
                "previous owner still alive after %d s; its writes are blocked, continuing",
                PATIENCE_S,
            )
            return
        session.check_stop()
        time.sleep(0.1)


def _work(config: RunConfig, session: Session, world: World) -> None:
    """Train and sample with all processes; evaluate with the main one alone."""
    run = session.run
    check_available(config.data)
    check_evaluable(config)
    if world.main:
        session.identity = Identity.of(config, content_hash(config.data, session.check_stop))
        _check_identity(run, session.identity)
    if config.train.batch_size < world.size:
        raise ConfigError(
            f"a batch of {config.train.batch_size} cannot be shared by {world.size} processes",
            "train.batch_size",
        )
    device = prepare(config.train.precision, world.local_rank)
    # what comes after the training is opened before it: a damaged file is reported now
    open_decoder(config.data, torch.device("cpu"))
    extractor = extractors.load(config.evaluate, torch.device("cpu"))
    if world.main:
        references.check(config.data, config.evaluate, extractor)
    keep_freed_memory()
    threads = torch.get_num_threads()
    if world.main:
        start = record_start(run, device, world.size)
        threads = start["threads"]
        log.info("%s on %s", run.name, _place(start))
        _describe(config, run)
    torch.set_num_threads(world.largest(threads if world.main else 0))
    if not samples_file(run).exists():
        Trainer(config, session, device, world).fit()
    sample_run(config, session, device, world)
    leave()
    if not world.main:
        return
    record = evaluate_run(config, session, device)
    log.info("done: %s = %.3f", record["metric"], record["value"])


def _check_identity(run: RunDir, own: Identity) -> None:
    """Compare the newest checkpoint and the folder's name with the config and the data.

    Raises:
        ConfigError: saying what differs.
    """
    if (newest := checkpoint.newest_mark(run.checkpoints)) is not None:
        file, mark = newest
        own.check(mark, f"{run.path}: {file.relative_to(run.path)}", "was trained")
    named = id_in(run.name)
    if named and not same_id(named, own.run):
        raise ConfigError(
            f"{run.path}: the folder's name ends in the id {named}, config.yaml describes the run "
            f"{own.run}. {RESTORE}"
        )


def _place(start: dict[str, Any]) -> str:
    count = start["processes"]
    return f"{start['device']} of {start['host']}" + (f", {count} processes" if count > 1 else "")


def _describe(config: RunConfig, run: RunDir) -> None:
    """Write model.json, images.json, and classes.json where the classes have names."""
    model, spec = config.model, config.data.spec
    parts = count_parameters(model, spec)
    description = {
        "name": model.name,
        "parameters": sum(parts.values()),
        "parts": parts,
        "flops": forward_flops(model, spec),
    }
    write_atomic(run.path / "model.json", json.dumps(description, indent=1))
    write_atomic(run.path / "images.json", json.dumps(images_by_class(config.data)))
    if names := class_names(config.data):
        write_atomic(run.path / "classes.json", json.dumps(names, indent=1, ensure_ascii=False))


@command
def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mpdit.run", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder, with its config.yaml")
    return execute(RunDir(parser.parse_args().run))


if __name__ == "__main__":
    sys.exit(main())
