"""One run from start to end: ``python -m mpdit.run results/<study>/<run>``.

Train, sample, evaluate. Whatever ended it before, the same command goes on from what is on disk,
and comes to the same bits.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path

import torch

from mpdit.config import ConfigError, RunConfig
from mpdit.data.datasets import check_available
from mpdit.evaluate import evaluate_run
from mpdit.parameters import count_parameters, forward_flops, total_parameters
from mpdit.provenance import record_start
from mpdit.sample import sample_run, samples_file
from mpdit.session import Interrupted, Session, log, open_session
from mpdit.study.rundir import (
    EXIT_BUSY,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    BusyError,
    RunDir,
    write_atomic,
)
from mpdit.train import NonFiniteLossError, Trainer


def execute(run: RunDir) -> int:
    """Bring the run to its end.

    Returns:
        an exit status: done, failed (its state says why), busy elsewhere, or interrupted with its
        state kept.

    Raises:
        ConfigError: when the folder is no run.
    """
    config = run.config()
    try:
        with run.lease():
            if run.is_done():
                print(f"{run.name} is done already", file=sys.stderr)
                return EXIT_DONE
            with open_session(run) as session:
                return _guarded(config, session)
    except BusyError as error:
        print(error, file=sys.stderr)
        return EXIT_BUSY


def _guarded(config: RunConfig, session: Session) -> int:
    """Do the work, and leave in state.json how it ended."""
    try:
        _work(config, session)
    except Interrupted as signal_name:
        log.info(
            "stopped by %s at %s %d; the same command goes on",
            signal_name,
            session.state.stage,
            session.state.step,
        )
        session.end(stopped=str(signal_name))
        return EXIT_INTERRUPTED
    except (ConfigError, NonFiniteLossError, OSError) as error:
        log.error("failed: %s", error)
        with suppress(OSError):  # a full disk takes no state either
            session.end(error=str(error))
        return EXIT_FAILED
    except Exception as error:
        session.end(error=f"{type(error).__name__}: {error}")
        raise
    session.end()
    return EXIT_DONE


def _work(config: RunConfig, session: Session) -> None:
    run = session.run
    check_available(config.data)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # set before CUDA starts: its matrix products are the same each time only with a fixed workspace
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    start = record_start(run, device)
    torch.set_num_threads(start["threads"])
    log.info("%s on %s of %s", run.name, start["device"], start["host"])
    _describe(config, run)
    if not samples_file(run).exists():
        Trainer(config, session, device).fit()
        sample_run(config, session, device)
    record = evaluate_run(config, session)
    log.info("done: %s = %.3f", record["metric"], record["value"])


def _describe(config: RunConfig, run: RunDir) -> None:
    """Write model.json."""
    model, spec = config.model, config.data.spec
    description = {
        "name": model.name,
        "parameters": total_parameters(model, spec),
        "parts": count_parameters(model, spec),
        "flops": forward_flops(model, spec),
    }
    write_atomic(run.path / "model.json", json.dumps(description, indent=1))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m mpdit.run", description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder, with its config.yaml")
    run = RunDir(parser.parse_args().run)
    try:
        return execute(run)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main())
