"""Estimate the cost of a study before it is submitted: GPU-hours (or core-hours) and disk.

Time is FLOPs over speed. A training step costs three forward passes of every image; a sample costs
one forward pass (two with guidance) for each step of the solver. The speed is measured on the
study's finished runs; without any, it is the device's peak times an assumed utilization, which the
grid's ``slurm:`` can set. `START_S` covers data preparation and evaluation, which take seconds.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mpdit.catalogue import DATASETS, EXTRACTORS
from mpdit.config import RunConfig
from mpdit.disk.files import read_rows
from mpdit.disk.jsontext import parse_json
from mpdit.disk.rundir import RunDir
from mpdit.flops import TRAINING_PASSES, forward_flops, muon_flops
from mpdit.grid.plan import PlannedRun
from mpdit.peaks import CPUS, peak_flops
from mpdit.study.studydir import StudyDir
from mpdit.text import size_text, two_digits

DEVICE = "A100"
UTILIZATION = 0.2
"""The utilization of a GPU's peak that is assumed where the grid names none."""
CORE_FLOPS = 15e9
"""FLOP/s of a CPU core in small models such as the quickstart's."""
START_S = 15.0
"""Seconds of imports, data preparation and evaluation."""
TRAIN_S, SAMPLE_S = 2e-3, 5e-4
"""Least GPU seconds of a block's training step and forward pass: the time to launch kernels."""
CHECKPOINTS = 2  # kept by a run (mpdit.training.checkpoint)
LATENT_PIXELS = 8  # pixels of the image along one side of a latent
ROW, PROBE_ROW, PROBE_NUMBER = 260, 46, 21  # bytes in the rows of metrics.jsonl, magnitudes.jsonl
PROBE_SITES = 8
OTHER = 25_000  # bytes of config, provenance, log, and the picture of the samples
MEASURED_RUNS = 5
"""The number of finished runs that are read for each model and precision."""

LARGE_HOURS = {"GPU": 100.0, "core": 1000.0}
"""`submit` asks for confirmation from this many hours on."""


@dataclass(frozen=True)
class Cost:
    """The cost of one run: hours of one GPU or core (``unit``), and bytes on disk by content."""

    unit: str
    hours: float
    measured: bool
    disk: dict[str, int]

    def row(self) -> dict[str, Any]:
        """The cost as a JSON object."""
        return {
            "unit": f"{self.unit}-hours",
            "hours": round(self.hours, 4),
            "from": "measured" if self.measured else "flops",
            "disk_bytes": {**self.disk, "total": sum(self.disk.values())},
        }


class Speeds:
    """FLOP/s of one device in a study's finished runs, by (stage, unit, precision, model)."""

    def __init__(self) -> None:
        self.totals: dict[tuple[object, ...], tuple[float, float]] = {}

    def add(self, key: tuple[object, ...], flops: float, seconds: float) -> None:
        """Add one run to its model's speed and to the speed of all models in its precision."""
        for known in (key, key[:-1]):
            before = self.totals.get(known, (0, 0))
            self.totals[known] = (before[0] + flops, before[1] + seconds)

    def find(self, key: tuple[object, ...]) -> float | None:
        """The model's speed, else that of all models in this precision, else None."""
        flops, seconds = self.totals.get(key) or self.totals.get(key[:-1], (0, 0))
        return flops / seconds if seconds else None


def _cost(run: PlannedRun, speeds: Speeds) -> Cost:
    unit, resources = _unit(run), run.resources
    devices = (resources.gpus or 1) * (resources.nodes or 1)
    hours, measured = START_S * devices / resources.runs_per_job, True
    for stage, flops, floor in _work(run):
        key = _key(stage, unit, run.config)
        speed = speeds.find(key)
        if speed is not None:  # measured on runs that shared their devices in the same way
            hours += flops / speed / resources.runs_per_job
            continue
        measured = False
        if unit == "core":
            hours += flops / CORE_FLOPS
        else:
            peak = peak_flops(resources.device or DEVICE, str(key[2])) or 0
            seconds = flops / (peak * (resources.utilization or UTILIZATION))
            # while one run waits for launches, other runs can use the device
            hours += max(seconds, floor * devices / resources.runs_per_job)
    return Cost(unit, hours / 3600, measured, disk_of(run.config, run.parameters))


def _unit(run: PlannedRun) -> str:
    """``GPU`` where the run's resources name one, else ``core``."""
    return "GPU" if run.resources.gpus or run.resources.device else "core"


def _work(run: PlannedRun) -> Iterable[tuple[str, float, float]]:
    """Yield (stage, FLOPs, least seconds on a GPU) of training and of sampling."""
    config = run.config
    with run.blamed():
        forward = float(_forward(config.model, config.data.spec))
    train, sample, depth = config.train, config.sample, config.model.depth
    passes = TRAINING_PASSES + train.gradient_checkpointing
    step = train.batch_size * passes * forward
    step += muon_flops(config.model) if train.optimizer == "muon" else 0
    yield "train", train.steps * step, train.steps * depth * TRAIN_S
    solved = config.evaluate.repeats * sample.passes
    guided = 1 if sample.guidance == 1 else 2
    batches = -(-sample.count // sample.batch_size)
    yield "sample", solved * guided * sample.count * forward, solved * batches * depth * SAMPLE_S


_forward = cache(forward_flops)


def _key(stage: str, unit: str, config: RunConfig) -> tuple[object, ...]:
    precision = config.train.precision if stage == "train" else config.sample.precision
    return stage, unit, precision, config.model


def disk_of(config: RunConfig, parameters: int) -> dict[str, int]:
    """Bytes of a finished run: checkpoints, ema, samples, features, records.

    Samples are counted uncompressed, which is an upper bound.
    """
    train, sample, spec = config.train, config.sample, config.data.spec
    weights = 4 * parameters
    stds = len(train.ema_stds)
    snapshots = -(-train.steps // (train.snapshot_every or 1))
    checkpoints = min(CHECKPOINTS, -(-train.steps // (train.checkpoint_every or 1)))
    sets = config.evaluate.repeats * sample.count
    decoded = DATASETS.find(config.data.name).kind == "latents"  # to RGB, by the VAE
    pixels = (spec.size * LATENT_PIXELS) ** 2 * 3 if decoded else spec.size**2 * spec.channels
    probes = 1 + -(-train.steps // (train.probe_every or 1))
    rows = -(-train.steps // train.log_every) * ROW * (2 if train.track else 1)
    probed = probes * PROBE_SITES * (PROBE_ROW + PROBE_NUMBER * config.model.depth)
    return {
        # a checkpoint holds weights, Adam's two moments, and the averages
        "checkpoints": checkpoints * (3 + stds) * weights,
        "ema": snapshots * stds * weights,
        "samples": sets * pixels,
        "features": sets * 4 * EXTRACTORS.find(config.evaluate.extractor).numbers,
        "records": rows + probed + OTHER,
    }


# The bill ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bill:
    """The sum of the costs of some runs."""

    costs: Sequence[Cost]
    assumed: str
    """The devices and speeds that estimates from FLOPs assume."""

    @property
    def hours(self) -> dict[str, float]:
        """Hours by unit, ``GPU`` or ``core``."""
        units = dict.fromkeys(cost.unit for cost in self.costs)
        return {unit: sum(c.hours for c in self.costs if c.unit == unit) for unit in units}

    @property
    def disk(self) -> dict[str, int]:
        """Bytes by content."""
        contents = self.costs[0].disk if self.costs else ()
        return {what: sum(cost.disk[what] for cost in self.costs) for what in contents}

    @property
    def is_large(self) -> bool:
        """Whether a person should confirm it."""
        return any(hours >= LARGE_HOURS[unit] for unit, hours in self.hours.items())

    def lines(self) -> tuple[str, str]:
        """One line on time and its source, one on disk and its contents."""
        measured = sum(cost.measured for cost in self.costs)
        flops = f"from FLOPs, assuming {self.assumed}"
        if measured == len(self.costs):
            source = "from the speed of the study's finished runs"
        elif measured:
            source = f"{measured:,} runs from the speed of finished ones, the others {flops}"
        else:
            source = flops
        parts = ", ".join(f"{what} {size_text(size)}" for what, size in self.disk.items())
        return (
            f"about {self.hours_text()}, {source}",
            f"about {size_text(sum(self.disk.values()))} of disk: {parts}",
        )

    def hours_text(self) -> str:
        """The hours to two digits: ``4,300 GPU-hours``."""
        texts = (f"{two_digits(hours)} {unit}-hours" for unit, hours in self.hours.items())
        return " and ".join(texts)


def make_bill(runs: Sequence[PlannedRun], study: StudyDir | None) -> Bill:
    """Estimate the cost of runs, from the speed of the study's finished runs where it has any."""
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
    """Why a person should confirm the bill: its hours, or more disk than is free at ``folder``;
    '' for a small bill."""
    texts = [bill.hours_text()] if bill.is_large else []
    while not folder.exists():
        folder = folder.absolute().parent
    free, needed = shutil.disk_usage(folder).free, sum(bill.disk.values())
    if needed > free:
        texts += [f"{size_text(needed)} of disk ({size_text(free)} free)"]
    return f"about {' and '.join(texts)}" if texts else ""


# Measured ----------------------------------------------------------------------------------------


def _measure(runs: Iterable[PlannedRun], study: StudyDir) -> Speeds:
    """Measure speeds on the study's finished runs, a few of each model and precision."""
    speeds = Speeds()
    runs = list(runs)
    folders = study.places(runs) if study.path.is_dir() else {}
    looked: Counter[tuple[object, ...]] = Counter()
    for run in runs:
        key = _key("train", _unit(run), run.config)
        if run.id not in folders or looked[key] >= MEASURED_RUNS:
            continue
        folder = study.run(folders[run.id])
        if folder.is_done() and _add(speeds, run, folder):
            looked[key] += 1
    return speeds


_SAMPLED = re.compile(r"  sample (\d+)/\1  ([\d,]+) images/s")


def _add(speeds: Speeds, run: PlannedRun, folder: RunDir) -> bool:
    """Add the speed of a finished run; return whether it recorded one on the planned kind of
    device."""
    try:
        starts = parse_json((folder.path / "provenance.json").read_bytes())["starts"]
        rows = read_rows(folder.path / "metrics.jsonl")
        said = folder.log.read_text(errors="replace")
        last = starts[-1]
        unit = "core" if last["device"] in CPUS else "GPU"
        devices = last["processes"] * (last["threads"] if unit == "core" else 1)
        seconds = rows[-1]["seconds"] * devices
    except (OSError, ValueError, LookupError, TypeError):
        return False
    if unit != _unit(run) or not seconds:
        return False
    (_, trained, _), (_, sampled, _) = _work(run)
    speeds.add(_key("train", unit, run.config), trained, seconds)
    rates = [int(rate.replace(",", "")) for _, rate in _SAMPLED.findall(said)]
    if rates and rates[-1]:
        images = run.config.evaluate.repeats * run.config.sample.count
        speeds.add(_key("sample", unit, run.config), sampled, images / rates[-1] * devices)
    return True
