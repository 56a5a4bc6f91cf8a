"""One process of several: writes the gradients of a run's first batch, as process 0 has them, and
the matrices after Muon's step with them, where the run has Muon."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from mpdit.disk.rundir import RunDir
from mpdit.runtime.distributed import join
from mpdit.runtime.session import Session
from mpdit.training.optimizer import MuonAndAdam
from mpdit.training.trainer import Trainer


def main(folder: Path, target: Path) -> None:
    torch.set_num_threads(1)
    run = RunDir(folder)
    with join() as world:
        trainer = Trainer(run.config(), Session(run, world.main), torch.device("cpu"), world)
        means = trainer.gradients(1)
        named = dict(trainer.model.named_parameters())
        gradients = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
        stepped = {}
        if isinstance(trainer.optimizer, MuonAndAdam):
            trainer.optimizer.step()
            pieces = {parameter for _, parameter, _ in trainer.optimizer.pieces}
            stepped = {f"step {n}": p.detach() for n, p in named.items() if p in pieces}
        if world.main:
            save_file({**gradients, **stepped, "means": means}, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
