"""Post-hoc EMA: ``mpdit ema RUN --std 0.03 0.07``.

The average of any relative width is a least-squares combination of a run's snapshots (EDM2, Karras
et al., arXiv:2312.02696, algorithm 3). Reconstructions are stored beside the snapshots in the same
format and never used as inputs: those are the snapshots of the config's ``train.ema_stds``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.disk.identity import Identity, Mark
from mpdit.disk.npz import DamagedError
from mpdit.disk.rundir import RunDir, chosen_run
from mpdit.ema.power import (
    SnapshotFile,
    posthoc_errors,
    posthoc_weights,
    snapshot_file,
    write_snapshot,
)
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.progress import Progress
from mpdit.runtime.session import log

WIDEST = 0.28
TRUSTED = 0.01
"""Relative error of the fit above which a reconstruction is called doubtful."""
SHARES = 16
"""The model is combined in this many shards: float64 sums need two of them beside the result."""


@dataclass(frozen=True)
class Snapshot:
    std: float
    step: int
    file: Path


@dataclass(frozen=True)
class Fit:
    """The combination of snapshots that makes the wanted averages.

    Attributes:
        stds, step: the wanted averages.
        snapshots: the stored snapshots up to that step.
        weights: the weight of each snapshot in each wanted average.
        errors: relative L² error of each combined profile (`posthoc_errors`).
        missing: snapshots that the run should have up to that step, but lacks.
        parameters: names of the averaged tensors; all others are fixed tables.
        shapes: the shape of each tensor in a snapshot.
        mark: the run and data that the snapshots belong to.
    """

    stds: tuple[float, ...]
    step: int
    snapshots: list[Snapshot]
    weights: Float[np.ndarray, "snapshots profiles"]
    errors: Float[np.ndarray, " profiles"]
    missing: list[Path]
    parameters: frozenset[str]
    shapes: dict[str, tuple[int, ...]]
    mark: Mark


def fit(run: RunDir, stds: Sequence[float], step: int | None = None) -> Fit:
    """Fit combinations of the run's snapshots to the wanted averages.

    Args:
        stds: relative widths.
        step: the averages' last step; None is the newest step that is stored in every width.

    Raises:
        ConfigError: when the run has no such snapshots, one is damaged or of another run, or a
            width is out of range.
    """
    for std in stds:
        if not 0 < std < WIDEST:
            raise ConfigError(f"width {std:g} is out of range: 0 < std < {WIDEST}")
    config = run.config()
    stored = _stored(run, config)
    whole = _whole_steps(config, stored)
    if step is None:
        step = whole[-1]
    elif step not in whole:
        near = sorted(sorted(whole, key=lambda other: abs(other - step))[:3])
        raise ConfigError(
            f"{run.path} has no snapshots of every width at step {step}; near it: "
            + ", ".join(map(str, near))
        )
    snapshots = [snapshot for snapshot in stored if snapshot.step <= step]
    with torch.device("meta"):
        model = DiT(config.model, config.data.spec)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    own = Identity.of(config)
    mark = [_check(snapshot.file, shapes, own) for snapshot in snapshots][-1]
    given = [s.step for s in snapshots], [s.std for s in snapshots]
    wanted = [step] * len(stds), list(stds)
    weights = posthoc_weights(*given, *wanted)
    return Fit(
        tuple(stds),
        step,
        snapshots,
        weights,
        posthoc_errors(weights, *given, *wanted),
        _missing(run, config, step),
        frozenset(name for name, _ in model.named_parameters()),
        shapes,
        mark,
    )


def combine(
    made_of: Fit, on_read: Callable[[int], object] = lambda _: None
) -> list[dict[str, Tensor]]:
    """Return the wanted averages in the order of ``made_of.stds``, summed in float64.

    Every byte of the snapshots is read once, whatever the number of averages. Memory holds the
    results, and a sixteenth of a model in float64 for each.

    Args:
        on_read: called with the number of bytes read.

    Raises:
        ConfigError: when a snapshot is damaged.
    """
    with _opened(made_of.snapshots[-1].file) as file:
        stored = {name: file.read(name) for name in made_of.shapes}
        # allocate all at once: allocating between the sums would fragment memory
        results = [
            {
                name: torch.empty_like(tensor) if name in made_of.parameters else tensor.clone()
                for name, tensor in stored.items()
            }
            for _ in made_of.stds
        ]
        del stored
    for names in _shares(made_of):
        sums = [
            {name: torch.zeros(made_of.shapes[name], dtype=torch.float64) for name in names}
            for _ in made_of.stds
        ]
        for snapshot, weights in zip(made_of.snapshots, made_of.weights, strict=True):
            # a file is mapped while it is open: its pages stay in memory until it is closed
            with _opened(snapshot.file) as file:
                for name in names:
                    tensor = file.read(name)
                    for of_one, weight in zip(sums, weights, strict=True):
                        of_one[name].add_(tensor, alpha=float(weight))
                    on_read(tensor.nbytes)
        for result, of_one in zip(results, sums, strict=True):
            for name in names:
                result[name].copy_(of_one[name])
    return results


def reconstruct(run: RunDir, std: float, step: int | None = None) -> dict[str, Tensor]:
    """Return a model's state dict with the average of relative width ``std`` at ``step``.

    Warnings about the reconstruction are logged.

    Raises:
        ConfigError: as `fit`.
    """
    made_of = fit(run, [std], step)
    for doubt in doubts(made_of):
        log.warning(doubt)
    return combine(made_of)[0]


def profile_error(run: RunDir, std: float, step: int) -> float:
    """Return the relative L² error of the average's profile (`posthoc_errors`); 0 if stored.

    Raises:
        ConfigError: as `fit`.
    """
    if std in run.config().train.ema_stds:
        return 0.0
    return float(fit(run, [std], step).errors[0])


def doubts(made_of: Fit) -> list[str]:
    """Return warnings for the user of a reconstruction, one line each; usually none."""
    lines = []
    if made_of.missing:
        names = ", ".join(file.name for file in made_of.missing[:3])
        more = f" and {len(made_of.missing) - 3} more" if len(made_of.missing) > 3 else ""
        lines.append(f"without {names}{more}, which are missing")
    trained = sorted({snapshot.std for snapshot in made_of.snapshots})
    for std, error in zip(made_of.stds, made_of.errors, strict=True):
        if error > TRUSTED:
            lines.append(
                f"EMA width {std:g} (relative error of the profile {error:.1e}) is doubtful, "
                + _advice(std, trained)
            )
    return lines


def _stored(run: RunDir, config: RunConfig) -> list[Snapshot]:
    """List the trained snapshots by step, then width; reconstructions have other widths."""
    found = [
        Snapshot(std, int(match[1]), file)
        for std in config.train.ema_stds
        for file in run.ema.glob(f"std{std:.3f}_step*.safetensors")
        if (match := re.search(r"_step(\d+)$", file.stem))
    ]
    return sorted(found, key=lambda snapshot: (snapshot.step, snapshot.std))


def _whole_steps(config: RunConfig, stored: list[Snapshot]) -> list[int]:
    """Return the steps that are stored in every width."""
    steps = [snapshot.step for snapshot in stored]
    widths = config.train.ema_stds
    whole = sorted(step for step in set(steps) if steps.count(step) == len(widths))
    if not whole:
        names = " and ".join(f"{std:g}" for std in widths)
        raise ConfigError(f"no snapshots of widths {names} yet: train first")
    return whole


def _missing(run: RunDir, config: RunConfig, step: int) -> list[Path]:
    every = config.train.snapshot_every or 1
    files = [
        snapshot_file(run.ema, std, due)
        for due in range(every, step + 1, every)
        for std in config.train.ema_stds
    ]
    return [file for file in files if not file.exists()]


def _check(file: Path, shapes: dict[str, tuple[int, ...]], own: Identity) -> Mark:
    """Refuse a snapshot that is torn or of another run, without reading its numbers."""
    with _opened(file) as snapshot:
        own.check(snapshot.mark, file, "was trained")
        if snapshot.shapes() != shapes:
            raise ConfigError(f"{file} belongs to another model. Delete it to continue without it")
        return snapshot.mark


@contextmanager
def _opened(file: Path) -> Iterator[SnapshotFile]:
    try:
        with SnapshotFile(file) as snapshot:
            yield snapshot
    except DamagedError as error:
        raise ConfigError(f"{error}. Delete it to continue without it") from None


def _shares(made_of: Fit) -> list[list[str]]:
    """Group the parameters' names into shards of about a sixteenth of the model."""
    sizes = {name: int(np.prod(made_of.shapes[name])) for name in sorted(made_of.parameters)}
    limit = sum(sizes.values()) / SHARES
    shares: list[list[str]] = [[]]
    room = limit
    for name, size in sizes.items():
        if shares[-1] and size > room:
            shares.append([])
            room = limit
        shares[-1].append(name)
        room -= size
    return shares


def make_snapshots(run: str, results: Path, std: list[float], step: int | None) -> None:
    """``mpdit ema``: write the averages of other widths beside a run's snapshots.

    Args:
        std: relative widths.
        step: training step of a stored snapshot; None: the newest.

    Raises:
        ConfigError: when a width cannot be made, or has been averaged in training.
    """
    _write(chosen_run(run, results), std, step)


def _write(run: RunDir, stds: list[float], step: int | None) -> None:
    trained = run.config().train.ema_stds
    for std in stds:
        if round(std, 3) != std:
            raise ConfigError(f"width {std:g}: files are named by three decimals")
        if std in trained:
            raise ConfigError(f"width {std:g} was averaged in training: it has snapshots")
    made_of = fit(run, sorted(set(stds)), step)
    for doubt in doubts(made_of):
        print(f"warning: {doubt}", file=sys.stderr)
    megabytes = sum(snapshot.file.stat().st_size for snapshot in made_of.snapshots) / 1e6
    with Progress("reading", megabytes, unit="MB") as progress:
        results = combine(made_of, lambda size: progress.advance(size / 1e6))
    for std, error, result in zip(made_of.stds, made_of.errors, results, strict=True):
        file = snapshot_file(run.ema, std, made_of.step)
        write_snapshot(file, result, made_of.mark)
        print(f"{file}  relative error of the profile {error:.1e}")


def _advice(std: float, trained: Sequence[float]) -> str:
    if min(trained) <= std <= max(trained):
        return "it takes more snapshots"
    return f"the stored widths are {', '.join(f'{width:g}' for width in trained)}"
