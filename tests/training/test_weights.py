"""A step's weights, normalized together, are those that each map makes; and a step is few calls."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mpdit.catalogue import PAPERS_FLAGS, Dataset
from mpdit.config import make_run
from mpdit.disk.rundir import RunDir
from mpdit.model import DiT
from mpdit.modelconfig import ModelConfig
from mpdit.runtime.distributed import World
from mpdit.runtime.session import Session
from mpdit.training.trainer import Trainer
from mpdit.training.weights import StepWeights
from tests.helpers.latents import make_store

ALL = dict.fromkeys(PAPERS_FLAGS, True)
DATA = Dataset(channels=1, size=8, classes=10, extractor="digits")
TINY = {"depth": 2, "width": 16, "heads": 2, "patch_size": 4}
MODELS = {
    "all": ALL,
    "mods": {"preset": "mods"},
    "final": {"preset": "final"},
    "not forced": {"weight_normalization": True, "modulation": "separate"},
    "unconditional": {**ALL, "conditioning": "none", "final_conditioning": "same"},
    "uncertain": {**ALL, "learned_uncertainty": True},
    "plain": {},
}
VIEWS = ("view", "_unsafe_view", "t.", "transpose", "permute", "expand", "unbind", "split", "slice",
         "select", "squeeze", "unsqueeze", "detach", "alias", "as_strided",
         "is_same_size")  # fmt: skip


def gradients(options: dict[str, object], together: bool) -> dict[str, torch.Tensor | None]:
    config = ModelConfig.model_validate({**TINY, **options})
    random = torch.Generator().manual_seed(0)
    model = DiT(config, DATA, generator=random).double()
    for parameter in model.parameters():  # what starts at zero hides what is behind it
        torch.nn.init.normal_(parameter, generator=random)
    weights = StepWeights(model, compiled=False)
    x = torch.randn(3, 1, 8, 8, dtype=torch.float64, generator=random)
    t, y = torch.tensor([0, 400, 999]), torch.tensor([1, 5, 5])

    def loss(part: slice) -> torch.Tensor:
        errors = model(x[part], t[part], y[part]).square().sum((1, 2, 3))
        uncertain = model.uncertainty
        return (errors if uncertain is None else errors * uncertain(t[part])).sum()

    kept = [parameter.detach().clone() for parameter in model.parameters()]
    if together:
        with weights.normalized():
            for part in (slice(2), slice(2, 3)):  # gradients of two microbatches add up
                loss(part).backward()
    else:
        loss(slice(3)).backward()
    for parameter, before in zip(model.parameters(), kept, strict=True):
        assert torch.equal(parameter, before)
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_gradients_are_those_of_maps_that_normalize_by_themselves(
    options: dict[str, object],
) -> None:
    together, apart = (gradients(options, way) for way in (True, False))
    for name, gradient in apart.items():
        found = together[name]
        if gradient is None or found is None:
            assert found is gradient
        else:
            assert (found - gradient).norm() <= 1e-11 * gradient.norm(), name


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS)
def test_forced_normalization_is_the_model_s(options: dict[str, object]) -> None:
    config = ModelConfig.model_validate({**TINY, **options})
    ours, theirs = (
        DiT(config, DATA, generator=torch.Generator().manual_seed(0)).double() for _ in range(2)
    )
    StepWeights(ours, compiled=False).force()
    theirs.normalize_weights()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


class Calls(TorchDispatchMode):
    """Counts the operations that PyTorch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.counted[func.__name__] += 1
        return func(*args, **(kwargs or {}))

    def computing(self) -> int:
        """All but views and comparisons of sizes."""
        return sum(n for name, n in self.counted.items() if not name.startswith(VIEWS))


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 1400), (ALL, 1700), ({**ALL, "conditioning": "rotation"}, 2350)],
    ids=["none", "all", "rotation"],
)
def test_an_eager_step_of_the_small_model_dispatches_few_operations(
    options: dict[str, object], most: int, tmp_path: Path
) -> None:
    """In bfloat16; 1,410, 2,929 and 3,554 when each map normalized its own weight."""
    model = {"name": "DiT-S/2", **options}
    train = {"steps": 1_000_000, "batch_size": 2, "precision": "bfloat16"}
    shape = {"channels": 4, "size": 8, "classes": 3}
    path = make_store(tmp_path / "store", 8)
    data = {"name": "latents", "path": str(path), **shape}
    config = make_run({"model": model, "data": data, "train": train})
    run = RunDir(tmp_path / "run")
    run.write_config(config)
    trainer = Trainer(config, Session(run), torch.device("cpu"), World())
    trainer.step = 1
    trainer.train_step()  # makes Adam's state
    trainer.step = 2
    with Calls() as calls:
        trainer.train_step()
    assert calls.computing() < most
