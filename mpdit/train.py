"""The trainer: one recipe for every variant (REFERENCE: Adam, warm-up, 1/sqrt decay, power EMA)."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import load_file, save_file
from torch import Tensor

from mpdit import checkpoint
from mpdit.config import RunConfig, TrainConfig
from mpdit.data.batches import Batches
from mpdit.diffusion import Diffusion
from mpdit.ema import PowerEMA
from mpdit.model import DiT
from mpdit.probe import Magnitudes, Probe, StepProbe
from mpdit.randomness import generator
from mpdit.session import Session, log
from mpdit.study.rundir import append_row, keep_rows, read_rows

MEASURES = ("loss", "mse", "vlb", "grad_norm")


class NonFiniteLossError(RuntimeError):
    """The loss is no number any more; the state from before is kept."""


def learning_rate_factor(step: int, train: TrainConfig) -> float:
    """Linear warm-up, constant, then 1/sqrt(step); ``step`` counts from 1."""
    warm = min(1.0, step / max(1, train.warmup_steps or 0))
    return warm * min(1.0, math.sqrt((train.constant_steps or 1) / step))


def snapshot_file(folder: Path, std: float, step: int) -> Path:
    """Where the EMA of relative width ``std`` after ``step`` steps is kept."""
    return folder / f"std{std:.3f}_step{step:08d}.safetensors"


def build_model(config: RunConfig, device: torch.device) -> DiT:
    """The model as the seed initializes it."""
    model = DiT(config.model, config.data.spec, generator=generator(config.seed, "init"))
    return model.to(device)


def load_snapshot(config: RunConfig, folder: Path, device: torch.device) -> DiT:
    """The model with the EMA weights that samples are drawn from."""
    file = snapshot_file(folder, config.sample.ema_std, config.train.steps)
    model = build_model(config, device)
    model.load_state_dict(load_file(file, device=str(device)))
    return model.eval()


class Trainer:
    """Everything that changes in training, and the step that changes it."""

    def __init__(self, config: RunConfig, session: Session, device: torch.device) -> None:
        self.config, self.session, self.device = config, session, device
        self.run = session.run
        self.batches = Batches(config, device)
        self.diffusion = Diffusion().to(device)
        self.model = build_model(config, device)
        self.model.recompute = config.train.gradient_checkpointing
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.Adam(
            parameter_groups(self.model, config.train),
            betas=config.train.adam_betas,
            fused=True,
        )
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = PowerEMA(self.parameters, config.train.ema_stds)
        self.probe = Probe.of_run(config, self.batches, self.diffusion)
        self.learning: Magnitudes = {}  # how the last step changed the weights, where probed
        self.step = 0
        self.seconds = 0.0  # spent in training steps, over all starts
        self.sums = torch.zeros(len(MEASURES), device=device)  # since the last row of metrics
        self.summed = 0  # steps in the sums

    def fit(self) -> None:
        """Train to the last step from the newest checkpoint.

        Raises:
            Interrupted: when a signal asked to stop; the state is kept.
            NonFiniteLossError: when the loss has become infinite or NaN.
        """
        train = self.config.train
        self._resume()
        self.session.stage("train", self.step, train.steps)
        if self.step == 0:
            self._probe()
        began = time.perf_counter()
        while self.step < train.steps:
            self.step += 1
            self._train_step()
            last = self.step == train.steps
            logged = self.step % train.log_every == 0 or last
            means = self._means() if logged else None  # waits for the device: before the clock
            self.seconds += time.perf_counter() - began
            if means is not None:
                self._log_row(means)
            loss = means["loss"] if means is not None else None
            self.session.advance(self.step, train.batch_size, loss)
            if self._probed():
                self._probe()
            if self.step % (train.snapshot_every or 1) == 0 or last:
                self._snapshot()
            if self.step % train.checkpoint_every == 0 or last or self.session.stop_signal:
                self._save()
                self.session.check_stop()
            began = time.perf_counter()

    def _train_step(self) -> None:
        train, step = self.config.train, self.step
        factor = learning_rate_factor(step, train)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.model.normalize_weights()
        x0, y = self.batches.batch(step)
        random = generator(self.config.seed, "train", step, self.device)
        loss = self._losses(x0, y, random)
        loss["loss"].backward()
        step_probe = StepProbe(self.model) if self._probed() else None
        # the norm is taken always: it is one of the measures
        limit = train.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit, foreach=True)
        self.optimizer.step()
        if step_probe is not None:
            self.learning = step_probe.after()
        self.optimizer.zero_grad()
        self.ema.update(step)
        values = [loss["loss"].detach(), loss["mse"].detach(), loss["vlb"].detach(), norm]
        self.sums += torch.stack(values)
        self.summed += 1

    def _losses(
        self,
        x0: Float[Tensor, "batch channels height width"],
        y: Int64[Tensor, " batch"],
        random: torch.Generator,
    ) -> dict[str, Float[Tensor, ""]]:
        """Batch means of loss, mse and vlb at random timesteps, some labels dropped."""
        train, B = self.config.train, len(x0)
        t = torch.randint(0, 1000, (B,), generator=random, device=self.device)
        noise = torch.randn(x0.shape, generator=random, device=self.device)
        dropped = torch.rand(B, generator=random, device=self.device) < train.label_dropout
        y = torch.where(dropped, self.model.null_class, y)
        x_t = self.diffusion.q_sample(x0, t, noise)
        bf16 = train.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            output = self.model(x_t, t, y)  # (B, 2C, H, W)
        terms = self.diffusion.loss(output.float(), x0, x_t, t, noise)
        return {name: terms[name].mean() for name in ("loss", "mse", "vlb")}

    def _means(self) -> dict[str, float]:
        """The measures' means over the steps since the last row.

        Raises:
            NonFiniteLossError: when they are no numbers any more.
        """
        means = dict(zip(MEASURES, (self.sums / self.summed).tolist(), strict=True))
        if not math.isfinite(means["loss"]):
            raise NonFiniteLossError(
                f"the loss is {means['loss']} at step {self.step}; "
                "the state up to the last checkpoint is kept. A smaller learning rate may help"
            )
        return means

    def _log_row(self, means: dict[str, float]) -> None:
        """Append to metrics.jsonl the means since the last row, and begin anew."""
        row = {
            "step": self.step,
            **means,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_s": self.step * self.config.train.batch_size / self.seconds,
            "memory_mb": self._peak_memory_mb(),
            "seconds": self.seconds,
        }
        append_row(self.run.path / "metrics.jsonl", row)
        self.sums.zero_()
        self.summed = 0

    def _peak_memory_mb(self) -> float:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    def _probed(self) -> bool:
        """Whether this step's magnitudes are wanted."""
        train = self.config.train
        return self.step % (train.probe_every or 1) == 0 or self.step == train.steps

    def _probe(self) -> None:
        measured = {**self.probe(self.model), **self.learning}
        for site, blocks in measured.items():
            row = {"step": self.step, "site": site, "blocks": blocks}
            append_row(self.run.path / "magnitudes.jsonl", row)

    def _snapshot(self) -> None:
        self.run.ema.mkdir(exist_ok=True)
        names = [name for name, _ in self.model.named_parameters()]
        fixed = self.model.state_dict()  # of which only tables remain: a snapshot is a whole model
        for std, average in self.ema.averages.items():
            file = snapshot_file(self.run.ema, std, self.step)
            temporary = file.with_suffix(".tmp")
            save_file({**fixed, **dict(zip(names, average, strict=True))}, temporary)
            temporary.replace(file)

    def _save(self) -> None:
        if self.summed:
            self._means()  # a broken state does not take the place of a good one
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "sums": self.sums,
            "summed": self.summed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
        }
        checkpoint.save(self.run.checkpoints, self.step, state)

    def _resume(self) -> None:
        state = checkpoint.load_newest(self.run.checkpoints, self.device, log.warning)
        if state is not None:
            self.step, self.seconds = state["step"], state["seconds"]
            self.sums, self.summed = state["sums"], state["summed"]
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            log.info("going on from step %d", self.step)
        for name in ("metrics.jsonl", "magnitudes.jsonl"):
            file = self.run.path / name
            rows = read_rows(file)
            # a run without a checkpoint starts over, its first probe included
            kept = [row for row in rows if row["step"] <= self.step and state is not None]
            if file.exists():
                keep_rows(file, kept)


def parameter_groups(model: DiT, train: TrainConfig) -> list[dict[str, Any]]:
    """Adam's groups: magnitude-preserving (weight-normalized) parameters, and the rest."""
    preserving = model.mp_parameters()
    ids = {id(parameter) for parameter in preserving}
    others = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    groups: list[dict[str, Any]] = [
        {"params": others, "lr": train.learning_rate},
        {"params": preserving, "lr": train.mp_learning_rate},
    ]
    return [group for group in groups if group["params"]]
