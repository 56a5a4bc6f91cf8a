"""What a study will take, before it is submitted: GPU-hours (or core-hours) and disk.

Time is operations over speed: a training step is three forward passes of every image, a sample one
(two with guidance) for each of the solver's steps. The speed is that of the study's own finished
runs where there are some, else the device's peak times an assumed utilization, both of which the
grid's ``slurm:`` can set. Data preparation and evaluation, which take seconds, are in `START_S`.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mpdit.config import RunConfig
from mpdit.disk.rundir import RunDir, read_rows
from mpdit.flops import TRAINING_PASSES, forward_flops
from mpdit.grid.plan import PlannedRun
from mpdit.peaks import peak_flops
from mpdit.study.studydir import StudyDir
from mpdit.text import size_text, two_digits

DEVICE = "A100"
UTILIZATION = 0.2
"""Assumed of a GPU where the grid names none."""
CORE_FLOPS = 15e9
"""Of a CPU core, in the small models that one would train there (the quickstart's)."""
START_S = 15.0
"""Imports, data and evaluation."""
TRAIN_S, SAMPLE_S = 2e-3, 5e-4
"""Least time that a GPU takes for a block's training step or forward pass: launching kernels."""
CHECKPOINTS = 2  # that a run keeps (mpdit.training.checkpoint)
LATENT_PIXELS = 8  # a latent's side, in pixels of the image
FEATURES = {"inception": 2048 + 1008}  # numbers kept of a sample: features and logits
ROW, PROBE_ROW, PROBE_NUMBER = 260, 46, 21  # bytes of metrics.jsonl's rows, magnitudes.jsonl's
PROBE_SITES = 8
OTHER = 25_000  # bytes: config, provenance, log, the picture of the samples
MEASURED_RUNS = 5
"""Finished runs of a model and precision that are looked at."""

LARGE_HOURS = {"GPU": 100.0, "core": 1000.0}
"""From so many on, `submit` asks."""


@dataclass(frozen=True)
class Cost:
    """Of one run: hours of one GPU or core (``unit``), and bytes on disk by what they hold."""

    unit: str
    hours: float
    measured: bool
    disk: dict[str, int]

    def row(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "unit": f"{self.unit}-hours",
            "hours": round(self.hours, 4),
            "from": "measured" if self.measured else "flops",
            "disk_bytes": {**self.disk, "total": sum(self.disk.values())},
        }


class Speeds:
    """FLOP/s of one device in the study's finished runs, by (stage, unit, precision, model)."""

    def __init__(self) -> None:
        self.totals: dict[tuple[object, ...], tuple[float, float]] = {}

    def add(self, key: tuple[object, ...], flops: float, seconds: float) -> None:
        for known in (key, key[:-1]):  # the model's own, and that of all with this precision
            before = self.totals.get(known, (0, 0))
            self.totals[known] = (before[0] + flops, before[1] + seconds)

    def find(self, key: tuple[object, ...]) -> float | None:
        """The model's own speed, else that of the others in this precision."""
        flops, seconds = self.totals.get(key) or self.totals.get(key[:-1], (0, 0))
        return flops / seconds if seconds else None


def _cost(run: PlannedRun, speeds: Speeds) -> Cost:
    unit, resources = _unit(run), run.resources
    devices = (resources.gpus or 1) * (resources.nodes or 1)
    hours, measured = START_S * devices / resources.runs_per_job, True
    for stage, flops, floor in _work(run.config):
        key = _key(stage, unit, run.config)
        speed = speeds.find(key)
        if speed is not None:  # of runs that shared their devices likewise
            hours += flops / speed / resources.runs_per_job
            continue
        measured = False
        if unit == "core":
            hours += flops / CORE_FLOPS
        else:
            peak = peak_flops(resources.device or DEVICE, str(key[2])) or 0
            seconds = flops / (peak * (resources.utilization or UTILIZATION))
            # what waits for launches leaves the device to the others that share it
            hours += max(seconds, floor * devices / resources.runs_per_job)
    return Cost(unit, hours / 3600, measured, disk_of(run.config, run.parameters))


def _unit(run: PlannedRun) -> str:
    """``GPU`` where its resources name one, else ``core``."""
    return "GPU" if run.resources.gpus or run.resources.device else "core"


def _work(config: RunConfig) -> Iterable[tuple[str, float, float]]:
    """(stage, FLOPs, least seconds on a GPU) of a run's two stages."""
    forward = float(_forward(config.model, config.data.spec))
    train, sample, depth = config.train, config.sample, config.model.depth
    passes = TRAINING_PASSES + train.gradient_checkpointing
    yield "train", train.steps * train.batch_size * passes * forward, train.steps * depth * TRAIN_S
    solved = config.evaluate.repeats * sample.steps
    guided = 1 if sample.guidance == 1 else 2
    batches = -(-sample.count // sample.batch_size)
    yield "sample", solved * guided * sample.count * forward, solved * batches * depth * SAMPLE_S


_forward = cache(forward_flops)


def _key(stage: str, unit: str, config: RunConfig) -> tuple[object, ...]:
    precision = config.train.precision if stage == "train" else config.sample.precision
    return stage, unit, precision, config.model


def disk_of(config: RunConfig, parameters: int) -> dict[str, int]:
    """Bytes that a finished run leaves: checkpoints, ema, samples, features, records.

    Samples are counted uncompressed, and so at most.
    """
    train, sample, spec = config.train, config.sample, config.data.spec
    weights = 4 * parameters
    stds = len(train.ema_stds)
    snapshots = -(-train.steps // (train.snapshot_every or 1))
    checkpoints = min(CHECKPOINTS, -(-train.steps // train.checkpoint_every))
    sets = config.evaluate.repeats * sample.count
    decoded = "latents" in config.data.name  # to RGB, by the VAE
    pixels = (spec.size * LATENT_PIXELS) ** 2 * 3 if decoded else spec.size**2 * spec.channels
    probes = 1 + -(-train.steps // (train.probe_every or 1))
    rows = -(-train.steps // train.log_every) * ROW * (2 if train.tensorboard else 1)
    probed = probes * PROBE_SITES * (PROBE_ROW + PROBE_NUMBER * config.model.depth)
    extractor = str(config.evaluate.extractor)
    return {
        # a checkpoint holds weights, Adam's two moments, and the averages
        "checkpoints": checkpoints * (3 + stds) * weights,
        "ema": snapshots * stds * weights,
        "samples": sets * pixels,
        "features": sets * 4 * FEATURES.get(extractor, 64 + spec.classes),
        "records": rows + probed + OTHER,
    }


# The bill ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """The costs of some runs, added up."""

    costs: Sequence[Cost]
    assumed: str
    """The devices that prices from FLOPs are of."""

    @property
    def hours(self) -> dict[str, float]:
        """By unit, GPU or core."""
        sums: dict[str, float] = defaultdict(float)
        for cost in self.costs:
            sums[cost.unit] += cost.hours
        return dict(sums)

    @property
    def disk(self) -> dict[str, int]:
        """Bytes by what they hold."""
        sums: Counter[str] = Counter()
        for cost in self.costs:
            sums.update(cost.disk)
        return dict(sums)

    @property
    def is_large(self) -> bool:
        """Whether a person should agree to it."""
        return any(hours >= LARGE_HOURS[unit] for unit, hours in self.hours.items())

    def lines(self) -> tuple[str, str]:
        """Time, and what it is taken from; disk, and what for."""
        measured = sum(cost.measured for cost in self.costs)
        flops = f"from FLOPs, assuming {self.assumed}"
        if measured == len(self.costs):
            source = "by the speed of the study's finished runs"
        elif measured:
            source = f"{measured:,} runs by the speed of finished ones, the others {flops}"
        else:
            source = flops
        parts = ", ".join(f"{what} {size_text(size)}" for what, size in self.disk.items())
        return (
            f"about {self.hours_text()}, {source}",
            f"about {size_text(sum(self.disk.values()))} of disk: {parts}",
        )

    def hours_text(self) -> str:
        """``4,300 GPU-hours``, two digits of it."""
        texts = (f"{two_digits(hours)} {unit}-hours" for unit, hours in self.hours.items())
        return " and ".join(texts)


def make_bill(runs: Sequence[PlannedRun], study: StudyDir | None) -> Bill:
    """What the runs will take, added up, by the speed of finished ones where there are some."""
    assumed = dict.fromkeys(
        f"a CPU core at {CORE_FLOPS / 1e9:g} GFLOP/s"
        if _unit(run) == "core"
        else f"one {run.resources.device or DEVICE} at "
        f"{100 * (run.resources.utilization or UTILIZATION):g} % of its peak "
        "(slurm: device, utilization)"
        for run in runs
    )
    speeds = Speeds() if study is None else _measure(runs, study)
    return Bill([_cost(run, speeds) for run in runs], " or ".join(assumed))


def doubts(bill: Bill, folder: Path) -> str:
    """Why a person should agree to the bill first: its hours, or more disk than is free at
    ``folder``; '' for a small one."""
    texts = [bill.hours_text()] if bill.is_large else []
    while not folder.exists():
        folder = folder.absolute().parent
    free, needed = shutil.disk_usage(folder).free, sum(bill.disk.values())
    if needed > free:
        texts += [f"{size_text(needed)} of disk, where {size_text(free)} are free"]
    return f"about {' and '.join(texts)}" if texts else ""


# Measured ----------------------------------------------------------------------------------------


def _measure(runs: Iterable[PlannedRun], study: StudyDir) -> Speeds:
    """The speeds of the study's finished runs, a few of each model and precision."""
    speeds = Speeds()
    folders = study.folders() if study.path.is_dir() else {}
    looked: Counter[tuple[object, ...]] = Counter()
    for run in runs:
        key = _key("train", _unit(run), run.config)
        if run.id not in folders or looked[key] >= MEASURED_RUNS:
            continue
        folder = study.run(folders[run.id])
        if folder.is_done() and _add(speeds, run, folder):
            looked[key] += 1
    return speeds


_CPUS = ("x86_64", "aarch64", "arm64", "arm", "ppc64le")
_SAMPLED = re.compile(r"  sample (\d+)/\1  ([\d,]+) images/s")


def _add(speeds: Speeds, run: PlannedRun, folder: RunDir) -> bool:
    """Whether the run, finished on the kind of device that is planned, said how fast it was."""
    try:
        starts = json.loads((folder.path / "provenance.json").read_bytes())["starts"]
        rows = read_rows(folder.path / "metrics.jsonl")
        said = folder.log.read_text(errors="replace")
        last = starts[-1]
        unit = "core" if last["device"] in _CPUS else "GPU"
        devices = last["processes"] * (last["threads"] if unit == "core" else 1)
        seconds = rows[-1]["seconds"] * devices
    except (OSError, ValueError, LookupError, TypeError):
        return False
    if unit != _unit(run) or not seconds:
        return False
    (_, trained, _), (_, sampled, _) = _work(run.config)
    speeds.add(_key("train", unit, run.config), trained, seconds)
    rates = [int(rate.replace(",", "")) for _, rate in _SAMPLED.findall(said)]
    if rates and rates[-1]:
        images = run.config.evaluate.repeats * run.config.sample.count
        speeds.add(_key("sample", unit, run.config), sampled, images / rates[-1] * devices)
    return True
