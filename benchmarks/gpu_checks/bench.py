"""The common parts of the checks: device, timing, configs, random latents, trainers."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mpdit.catalogue import PAPERS_FLAGS
from mpdit.config import RunConfig, make_run
from mpdit.data.latents import LABELS, MANIFEST, LatentSource, Manifest, StorePlan, shard_name
from mpdit.disk.rundir import RunDir
from mpdit.runtime.devices import prepare
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training.trainer import Trainer

PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Bench:
    """The device under test.

    Attributes:
        tiny: small models and few rounds, for a machine without a GPU.
    """

    device: str
    tiny: bool

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def place(self) -> torch.device:
        return torch.device("cuda", 0) if self.cuda else torch.device("cpu")

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions that the device supports."""
        return tuple(name for name in PRECISIONS if self.cuda or name != "tf32")

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def timed(
        self, work: Callable[[], object], rounds: int = 20, warm: int = 5
    ) -> tuple[float, float]:
        """Seconds of a call on a busy device, and seconds until the host returns."""
        if self.tiny:
            rounds, warm = 2, 1
        for _ in range(warm):
            work()
        self.synchronize()
        hosts = []
        for _ in range(3):  # each from an empty queue
            began = time.perf_counter()
            work()
            hosts.append(time.perf_counter() - began)
            self.synchronize()
        began = time.perf_counter()
        for _ in range(rounds):
            work()
        self.synchronize()
        return (time.perf_counter() - began) / rounds, statistics.median(hosts)

    def config(
        self, size: str = "S/2", flags: bool = True, **sections: dict[str, Any]
    ) -> RunConfig:
        """The config of a run on latents 4×16×16, with all flags or none and more ``sections``."""
        model: dict[str, Any] = {"name": f"DiT-{size}", **dict.fromkeys(PAPERS_FLAGS, flags)}
        train: dict[str, Any] = {"steps": 1_000_000, "batch_size": 256, "precision": "bfloat16"}
        if self.tiny:
            model.pop("name")
            model |= {"depth": 1, "width": 32, "heads": 2, "patch_size": 4}
            train["batch_size"] = 8
        tree = {"model": model, "data": {"name": "imagenet128-latents"}, "train": train}
        for name, options in sections.items():
            tree.setdefault(name, {}).update(options)
        return make_run(tree)

    @contextmanager
    def trainer(self, config: RunConfig, images: int = 2048) -> Iterator[Trainer]:
        """A trainer of the config on random latents, in its own folder."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder)
            store(path, 64 if self.tiny else images)
            tree = config.resolved()
            tree["data"]["path"] = folder
            run = RunDir(path / "run")
            run.write_config(make_run(tree))
            device = prepare(config.train.precision)
            made = Trainer(run.config(), Session(run), device, World())
            yield made
            made.writer.settle()


def store(path: Path, images: int) -> None:
    """Write a latent store of normal noise: zeros would be faster than real data."""
    plan = StorePlan(
        images=images,
        classes=1000,
        channels=4,
        size=16,
        flips=2,
        shard_images=images,
        source=LatentSource(data="none", hash="", pixels=128, vae="none", vae_hash=None),
    )
    shape = (images, plan.flips, *plan.row_shape)
    moments = np.random.default_rng(0).standard_normal(shape, np.float32).astype(np.float16)
    np.abs(moments[:, :, 1], out=moments[:, :, 1])  # standard deviations
    np.save(path / shard_name(0), moments)
    np.save(path / LABELS, np.arange(images) % plan.classes)
    manifest = Manifest(**dict(plan), mean=(0.0,) * 4, std=(1.0,) * 4, sha256={})
    (path / MANIFEST).write_text(manifest.model_dump_json())


def stepper(trainer: Trainer) -> Callable[[], None]:
    """The trainer's own step, which counts."""

    def step() -> None:
        trainer.step += 1
        trainer.train_step()

    return step


def relative(a: Tensor, b: Tensor) -> float:
    """The L² error of ``a``, relative to ``b``."""
    exact = b.double().cpu()
    return float((a.double().cpu() - exact).norm() / exact.norm())
