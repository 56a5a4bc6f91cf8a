"""The trainer: one recipe for every variant (REFERENCE: Adam, warm-up, 1/sqrt decay, power EMA)."""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mpdit.config import RunConfig
from mpdit.diffusion.objectives import objective_of
from mpdit.diffusion.process import Diffusion
from mpdit.diffusion.target import Times
from mpdit.disk import lease
from mpdit.disk.files import append_row, make_folder, sync_path
from mpdit.disk.identity import RESTORE
from mpdit.disk.npz import DamagedError
from mpdit.ema.power import (
    PowerEMA,
    SnapshotFile,
    snapshot_file,
    whole_model,
    write_snapshot,
)
from mpdit.errors import ConfigError
from mpdit.model import DiT
from mpdit.runtime.distributed import World
from mpdit.runtime.provenance import record_missing_rows
from mpdit.runtime.randomness import generator
from mpdit.runtime.session import Interrupted, Session, log
from mpdit.runtime.tracking import Tracker
from mpdit.trainconfig import TrainConfig
from mpdit.training import checkpoint
from mpdit.training.batches import Batches, microbatches
from mpdit.training.learner import Learner, replicate
from mpdit.training.meters import Meters, NonFiniteLossError
from mpdit.training.optimizer import make_optimizer
from mpdit.training.probe import Magnitudes, Probe, StepProbe
from mpdit.training.rows import missing_rows, resume_rows
from mpdit.training.start import load_start
from mpdit.training.statewriter import StateWriter
from mpdit.training.weights import StepWeights

ROWS = ("metrics.jsonl", "magnitudes.jsonl")
ASKED_EVERY = 8
ASKED_S = 1.0
"""Steps, or seconds where steps are long, between two exchanges of signals by the processes."""


def learning_rate_factor(step: int, train: TrainConfig) -> float:
    """Linear warm-up, constant, then 1/√step (EDM2 section B.3); ``step`` counts from 1."""
    warm = min(1.0, step / max(1, train.warmup_steps or 0))
    since = max(1, step - train.decay_offset)
    return warm * min(1.0, math.sqrt((train.constant_steps or 1) / since))


def build_model(config: RunConfig, device: torch.device) -> DiT:
    """The model as the seed initializes it."""
    model = DiT(config.model, config.data.spec, generator=generator(config.seed, "init"))
    return model.to(device)


class Trainer:
    """Everything that changes in training, and the step that changes it.

    Several processes each take their shard of every batch (`World`); all hold the same weights.
    """

    def __init__(
        self,
        config: RunConfig,
        session: Session,
        device: torch.device,
        world: World,
        tracker: Tracker | None = None,
    ) -> None:
        self.config, self.session, self.device, self.world = config, session, device, world
        self.run = session.run
        self.tracker = tracker or Tracker(session.run, config, None)
        self.batches = Batches(config, device)
        self.objective = objective_of(config, Diffusion().to(device))
        self.model = build_model(config, device)
        self.model.recompute = config.train.gradient_checkpointing
        if config.train.compile:
            self.model.compile_blocks()
        self.weights = StepWeights(self.model, compiled=config.train.compile)
        self.learner = Learner(self.model)
        self.replica = replicate(self.learner) if world.size > 1 else None
        self.parameters = list(self.model.parameters())
        self.optimizer = make_optimizer(self.model, config.train)
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = PowerEMA(self.parameters, config.train.ema_stds)
        self.meters = Meters(config, self.run, device, world.size)
        self.probe = Probe.of_run(config, self.batches, self.objective)
        self.learning: Magnitudes = {}  # how the last step changed the weights, where probed
        self.rows: dict[str, list[int]] = {name: [] for name in ROWS}  # the steps in each file
        self.writer = StateWriter()
        self.saved = time.perf_counter()  # when the last checkpoint was taken
        self.step = self.next_asked = 0

    def fit(self) -> None:
        """Train to the last step from the newest checkpoint.

        Raises:
            Interrupted: when a signal asked to stop; the state is kept.
            NonFiniteLossError: when the loss has become infinite or NaN.
            OSError: when a checkpoint or another file cannot be written.
            ConfigError: when the processes do not see the same checkpoints, or these were trained
                with other betas; as `load_start`.
        """
        try:
            self._fit()
        finally:
            self.writer.settle()
        self.writer.check()

    def _fit(self) -> None:
        train, main = self.config.train, self.world.main
        self._resume()
        if self.replica is not None:
            self._settle()
        self.tracker.begin(self.step)
        self.session.stage("train", self.step, train.steps)
        if self.step == 0 and main:
            self._probe()
        self.saved = before = time.perf_counter()
        while self.step < train.steps:
            self.step += 1
            self.train_step()
            last = self.step == train.steps
            logged = self.step % train.log_every == 0 or last
            # before the clock is read: the means wait for the device
            means = self._means() if logged else None
            now = time.perf_counter()
            self.meters.took(now - before)  # with the work after the last step
            spent, before = now - before, now
            if means is not None:
                row = self.meters.row(self.step, means, self.optimizer.param_groups[0]["lr"])
                if main:
                    self._append("metrics.jsonl", row)
                    self.tracker.row(row)
            self.session.advance(self.step, train.batch_size, means["loss"] if means else None)
            if self._probed() and main:
                self._probe()
            if self._due():
                self._snapshot()
            save, stop = self._asked(spent)
            if save or last or stop:
                self._save()
            self.writer.check()
            if stop:
                self.writer.drain()
                # together: a launcher that sees one process end may kill the one that still writes
                self.world.largest(0)
                raise Interrupted(stop)

    def _asked(self, step_s: float) -> tuple[bool, int]:
        """Whether a checkpoint is due, and the number of the signal that asks to stop, or 0.

        The answer is the same in all processes.

        Args:
            step_s: seconds that the step took.
        """
        train, every = self.config.train, self.config.train.checkpoint_every
        due = every is not None and self.step % every == 0
        if self.world.size > 1 and self.step < self.next_asked and self.step < train.steps:
            return due, 0
        minutes = (time.perf_counter() - self.saved) / 60
        own = self.world.main and every is None and minutes >= train.checkpoint_minutes
        late, stop, longest_us = self.world.largest_each(
            own, self.session.stop_signal, int(1e6 * step_s)
        )
        steps = ASKED_S * 1e6 / max(longest_us, 1)
        self.next_asked = self.step + max(1, min(ASKED_EVERY, int(steps)))
        return due or bool(late), stop

    def train_step(self) -> None:
        """Step ``self.step``: gradients of the batch, Adam, the averages."""
        train, step = self.config.train, self.step
        factor = learning_rate_factor(step, train)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        self.weights.force()
        losses = self.gradients(step)
        step_probe = StepProbe(self.model) if self._probed() and self.world.main else None
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if train.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(
                self.parameters, train.clip_norm, norm, foreach=True
            )
        self.optimizer.step()
        if step_probe is not None:
            self.learning = step_probe.after()
        self.optimizer.zero_grad()
        self.ema.update(step)
        self.meters.add(torch.cat((losses, norm[None])))

    def draw(
        self, step: int
    ) -> tuple[
        Float[Tensor, "batch channels height width"],
        Times,
        Float[Tensor, "batch channels height width"],
        Int64[Tensor, " batch"],
    ]:
        """Images x₀, times t, noise and labels (some dropped) of this rank's shard of a batch.

        Random numbers are drawn for the whole batch.
        """
        train, B = self.config.train, self.config.train.batch_size
        random = generator(self.config.seed, "train", step, self.device)
        spec = self.config.data.spec
        t = self.objective.times(B, random, self.device)
        shape = (B, spec.channels, spec.size, spec.size)
        noise = torch.randn(shape, generator=random, device=self.device)
        dropped = torch.rand(B, generator=random, device=self.device) < train.label_dropout

        share = self.world.share(B)
        x0, y = self.batches.batch(step, share)  # (share, C, H, W), (share,)
        t, noise, dropped = t[share], noise[share], dropped[share]
        return x0, t, noise, torch.where(dropped, self.model.null_class, y)

    def gradients(self, step: int) -> Float[Tensor, 3]:
        """Leave the batch's gradients in the parameters.

        This rank's shard is taken in microbatches of at most ``micro_batch_size`` images.

        Returns:
            The whole batch's means of loss, mse and vlb.
        """
        train, B = self.config.train, self.config.train.batch_size
        x0, t, noise, y = self.draw(step)
        turns = microbatches(len(y), train.micro_batch_size, even=train.compile)
        parts = zip(*(values.tensor_split(turns) for values in (x0, t, noise, y)), strict=True)
        sums = torch.zeros(3, device=self.device)
        with self.weights.normalized():
            for turn, part in enumerate(parts, start=1):
                with self._exchanged(turn == turns):
                    losses = self._losses(*part) / B
                    # replicas' gradients are averaged, and are to be added up
                    (losses[0] * self.world.size).backward()
                sums += losses.detach()
        return self.world.add_up(sums)

    def _exchanged(self, last: bool) -> AbstractContextManager[None]:
        """The context of a backward pass: gradients are exchanged in the last microbatch only."""
        if self.replica is None or last:
            return nullcontext()
        return self.replica.no_sync()

    def _losses(
        self,
        x0: Float[Tensor, "batch channels height width"],
        t: Times,
        noise: Float[Tensor, "batch channels height width"],
        y: Int64[Tensor, " batch"],
    ) -> Float[Tensor, 3]:
        """Sums over the images of loss, mse and vlb."""
        x_t = self.objective.noised(x0, t, noise)
        bf16 = self.config.train.precision == "bfloat16"
        learner = self.learner if self.replica is None else self.replica
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            output, u = learner(*self.objective.inputs(x_t, t), y)  # (B, 2C, H, W); (B) or None
        # autocast's bfloat16 is not for losses
        output = output.to(torch.promote_types(output.dtype, torch.float32))
        terms = self.objective.loss(output, x0, x_t, t, noise)
        if u is not None:
            terms["loss"] = terms["loss"] * (-u).exp() + u
        return torch.stack([terms[name].sum() for name in ("loss", "mse", "vlb")])

    def _settle(self) -> None:
        """Let the replicas agree on the order in which gradients are exchanged.

        DDP chooses it again after its first backward pass. Without an extra pass, whose gradients
        are discarded, the first step after a resume would add in another order than before.
        """
        self.gradients(1)
        self.optimizer.zero_grad()

    def _probed(self) -> bool:
        """Whether this step's magnitudes are recorded."""
        train = self.config.train
        return self.step % (train.probe_every or 1) == 0 or self.step == train.steps

    def _probe(self) -> None:
        measured = {**self.probe(self.model), **self.learning}
        for site, blocks in measured.items():
            row = {"step": self.step, "site": site, "blocks": blocks}
            self._append("magnitudes.jsonl", row)

    def _append(self, name: str, row: dict[str, Any]) -> None:
        append_row(self.run.path / name, row)
        self.rows[name].append(row["step"])

    def _due(self) -> bool:
        """Whether this step has snapshots."""
        train = self.config.train
        return self.step % (train.snapshot_every or 1) == 0 or self.step == train.steps

    def _snapshot(self) -> None:
        self._check_finite()
        if self.world.main:
            weights = {s: whole_model(self.model, own) for s, own in self.ema.averages.items()}
            self.writer.submit(weights, partial(self._write_snapshots, self.step))

    def _write_snapshots(self, step: int, weights: dict[float, dict[str, Tensor]]) -> None:
        make_folder(self.run.ema)
        mark = self.session.identity.mark()
        for std, tensors in weights.items():
            write_snapshot(snapshot_file(self.run.ema, std, step), tensors, mark)

    def _mend_snapshots(self) -> None:
        """Rewrite missing or damaged snapshots of this step from the checkpoint's averages."""
        for std in self.ema.averages:
            file = snapshot_file(self.run.ema, std, self.step)
            try:
                with SnapshotFile(file) as snapshot:
                    snapshot.read_all()
            except (DamagedError, FileNotFoundError) as error:
                log.warning("%s; it is made again from the checkpoint", error)
                weights = whole_model(self.model, self.ema.averages[std])
                self._write_snapshots(self.step, {std: weights})

    def _check_finite(self) -> None:
        """Refuse to replace a good state by a broken one.

        Raises:
            NonFiniteLossError: when the loss or a gradient has been infinite or NaN.
        """
        if self.meters.summed:
            self._means()

    def _means(self) -> dict[str, float]:
        try:
            return self.meters.means(self.step)
        except NonFiniteLossError:
            self.writer.settle()
            return self.meters.means(self.step)  # the same error, with the newest checkpoint's name

    def _save(self) -> None:
        self._check_finite()
        if not self.world.main:
            return
        state = {
            "step": self.step,
            "meters": self.meters.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "rows": {name: torch.tensor(steps).long() for name, steps in self.rows.items()},
        }
        self.writer.submit(state, partial(self._write_checkpoint, self.step))
        self.saved = time.perf_counter()

    def _write_checkpoint(self, step: int, state: dict[str, Any]) -> None:
        for name in ROWS:  # a resume from now on expects these rows
            if (self.run.path / name).exists():
                sync_path(self.run.path / name)
        mark = self.session.identity.mark()
        checkpoint.save(self.run.checkpoints, step, state, mark, read_back=False)

    def _resume(self) -> None:
        state = checkpoint.load_newest(self.run.checkpoints, self.device, log.warning)
        if state is not None:
            self._check_betas(state)
            self.step = state["step"]
            self.meters.load_state_dict(state["meters"])
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            log.info("resuming from step %d", self.step)
        elif (start := self.config.train.start) is not None:
            load_start(self.model, start)
            log.info("starting from the weights of %s", start.path)
        newest = self.world.largest(self.step)
        if self.world.largest(newest - self.step):  # of another step, in any process
            raise ConfigError(
                f"the processes do not see the same checkpoints: the newest is of step {newest}, "
                f"process {self.world.rank} read that of step {self.step}. "
                "They need one file system; where it is one, start again"
            )
        if not self.world.main:
            return
        lease.check(self.run.ema)
        for left in self.run.ema.glob(".tmp*"):  # safetensors' own, of a write that broke off
            left.unlink()
        self._resume_rows(state)
        if state is not None:
            checkpoint.sweep(self.run.checkpoints, self.step)
            if self._due() and checkpoint.has_averages(state):
                self._mend_snapshots()

    def _resume_rows(self, state: dict[str, Any] | None) -> None:
        lost = []
        for name in ROWS:
            # a run without a checkpoint starts over, its first probe included
            step = self.step if state is not None else -1
            self.rows[name] = resume_rows(self.run.path / name, step)
            written = (state or {}).get("rows", {}).get(name)  # version 0.1 did not record them
            if written is not None:
                lost.append(missing_rows(name, self.rows[name], written.tolist()))
        if lines := [line for line in lost if line]:
            for line in lines:
                log.warning(line)
            record_missing_rows(self.run, lines)

    def _check_betas(self, state: dict[str, Any]) -> None:
        """Compare the checkpoint's betas, which Adam would use, with the config's.

        A checkpoint of the last step is not checked, as its betas are never used again: in runs
        that version 0.1 converted they are torch's defaults.

        Raises:
            ConfigError: when they differ, as they may where a checkpoint has no mark.
        """
        if state["step"] == self.config.train.steps:
            return
        used, told = state["optimizer"]["param_groups"][0]["betas"], self.config.train.adam_betas
        if tuple(used) != tuple(told):
            raise ConfigError(
                f"{self.run.path}: the checkpoint of step {state['step']} was trained with "
                f"train.adam_betas={list(used)}, config.yaml says {list(told)}. {RESTORE}"
            )
