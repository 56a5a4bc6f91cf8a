"""One run from start to end: ``mpdit run RUN``, ``python -m mpdit.run results/<study>/<run>``.

Train, sample, evaluate. After any interruption, the same command resumes from the disk, and gives
the same bits.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before torch is imported, which takes seconds
    from mpdit.runtime import signals

    signals.note()

    from mpdit.commandline.door import door

    sys.exit(door(sys.argv[1:], "mpdit.run", "run"))

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from mpdit import extensions
from mpdit.config import RunConfig
from mpdit.data.content import content_hash
from mpdit.data.datasets import check_available, class_names, images_by_class
from mpdit.data.preflight import check_evaluable
from mpdit.disk.files import write_atomic
from mpdit.disk.identity import RESTORE, Identity, same_id
from mpdit.disk.lease import BusyError, Lease, share
from mpdit.disk.rundir import RunDir, chosen_run, id_in
from mpdit.encoding.decoder import open_decoder
from mpdit.errors import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    explain_os_error,
)
from mpdit.evaluation import extractors, references
from mpdit.evaluation.evaluation import evaluate_run
from mpdit.flops import count_parameters, forward_flops
from mpdit.runtime.devices import prepare
from mpdit.runtime.distributed import World, abort, check_devices, join, leave
from mpdit.runtime.memory import keep_freed_memory
from mpdit.runtime.peers import Peers, heard
from mpdit.runtime.provenance import record_start
from mpdit.runtime.session import Interrupted, Session, log, open_session
from mpdit.runtime.tracking import tracked
from mpdit.sampling.sampler import sample_run, samples_file
from mpdit.training import checkpoint
from mpdit.training.meters import NonFiniteLossError
from mpdit.training.trainer import Trainer

LESS_MEMORY = (
    "To use less, set train.micro_batch_size, train.gradient_checkpointing or a smaller "
    "sample.batch_size, which change no run's identity"
)
PATIENCE_S = 30
"""Seconds to wait for an orphan: it notices within a heartbeat, once its step is over."""
REASON_S = 5
"""Seconds to wait for the reason of a lost connection: the process that failed reports it first."""


def execute(run: RunDir) -> int:
    """Execute the run, or resume it, to its end.

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
            with (
                _held(run, world) as lease,
                open_session(run, world.main) as session,
                heard(world, lambda reason: _follow(reason, session)) as peers,
            ):
                return _guarded(config, session, world, lease, peers)
    except BusyError as error:
        print(error, file=sys.stderr)
        return EXIT_BUSY


@contextmanager
def _held(run: RunDir, world: World) -> Iterator[Lease]:
    """Lease the run, in the main process for all; every process checks the lease before a write.

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


def _guarded(config: RunConfig, session: Session, world: World, lease: Lease, peers: Peers) -> int:
    """Do the work, and record in state.json how it ended.

    Raises:
        BusyError: when another process has taken over the run.
    """
    try:
        _outlive(lease, session)
        _work(config, session, world, peers)
    except Exception as error:
        lease.check()  # an orphan's error is not recorded
        return _ended_by(error, session, peers)
    session.end()
    return EXIT_DONE


def _ended_by(error: Exception, session: Session, peers: Peers) -> int:
    """Record the error in state.json and return an exit status; raise an error of the code.

    Of several processes, the first that fails sends its reason to the others, which report only
    that.
    """
    if isinstance(error, ConfigError | NonFiniteLossError | OSError | torch.OutOfMemoryError):
        message = str(error)
        if isinstance(error, OSError):
            message = extensions.explained(error) or explain_os_error(error)
        if isinstance(error, torch.OutOfMemoryError):
            message = f"{message.rstrip('.')}. {LESS_MEMORY}"
        if peers.fail(message) or session.main:
            _fail(message, session)
        abort()
        return EXIT_FAILED
    if not isinstance(error, Interrupted):
        if not session.stop_signal:
            if reason := peers.reason(REASON_S):  # seen here as a lost connection
                _follow(reason, session)
                abort()
                return EXIT_FAILED
            message = _own_reason(error, session)
            peers.fail(message)
            session.end(error=message)
            abort()
            raise error
        # Slurm sends its signal to all processes: it may have killed a compiler's
        log.warning("%s: %s", type(error).__name__, error)
        error = Interrupted(session.stop_signal)
    stage, step = session.state.stage, session.state.step
    log.info("stopped by %s at %s %d; the same command resumes", error, stage, step)
    session.end(stopped=str(error))
    return EXIT_INTERRUPTED


def _own_reason(error: Exception, session: Session) -> str:
    """The reason of an error of the code; for an extension's, with its file and line, and with the
    traceback in the log, as the command itself ends with one message."""
    if (message := extensions.explained(error)) is None:
        return f"{type(error).__name__}: {error}"
    message = message.removeprefix(f"{session.run.path}/")
    log.error("failed: %s", message, exc_info=error)
    return message


def _fail(message: str, session: Session) -> None:
    log.error("failed: %s", message)
    with suppress(OSError):  # a full disk has no room for the state either
        session.end(error=message)


def _follow(reason: str, session: Session) -> None:
    """Fail because another process failed, and record its reason."""
    log.error("this process exits because %s", reason)
    with suppress(OSError):
        session.end(error=reason)


def _outlive(lease: Lease, session: Session) -> None:
    """Wait up to `PATIENCE_S` for the orphan, from which the run was taken over, to end.

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


def _work(config: RunConfig, session: Session, world: World, peers: Peers) -> None:
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
    check_devices(world, device)
    # open now what is needed after training, so that a damaged file is reported at once
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
    with tracked(run, config, world.main) as tracker:
        if not samples_file(run).exists():
            Trainer(config, session, device, world, tracker).fit()
        sample_run(config, session, device, world)
        world.largest(0)  # all are done: from here on, a lost process is no failure
        peers.close()
        leave()
        if not world.main:
            return
        records = evaluate_run(config, session, device)
        tracker.scores(records)
    log.info("done: %s = %.3f", records[0]["metric"], records[0]["value"])


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


def run_folder(run: str, results: Path) -> int:
    """``mpdit run``: `execute` for a run's folder, name or id."""
    return execute(chosen_run(run, results))
