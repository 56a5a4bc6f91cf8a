"""Numbers of the official code: ``*.npz`` of tests/golden/, or of the folder MPDIT_GOLDEN names."""

import json
import os
from pathlib import Path

import numpy as np
import torch

from mpdit.model import DiT
from mpdit.modelconfig import ModelConfig
from mpdit.official.tensors import BUFFERS, dataset, from_official, model_options
from tests.helpers import ROOT

GOLDEN = Path(os.environ.get("MPDIT_GOLDEN") or ROOT / "tests" / "golden")
FILES = sorted(GOLDEN.glob("*.npz"))
MODELS = [path for path in FILES if "out_eval" in np.load(path)]
TRAINED = [path for path in FILES if "rows" in np.load(path)]
DIFFUSION, POSTHOC = GOLDEN / "diffusion.npz", GOLDEN / "posthoc_ema.npz"
EXACT, OWN_TABLES = 1e-9, 1e-4


class Golden:
    """One stored model: its arrays, its config, and ours built from both."""

    def __init__(self, path: Path) -> None:
        self.arrays = {key: value for key, value in np.load(path).items() if key != "meta"}
        self.meta = json.loads(str(np.load(path)["meta"]))
        self.kind, self.arguments = self.meta["kind"], self.meta["config"]
        self.config = ModelConfig.model_validate(model_options(self.arguments, self.kind))
        self.data = dataset(self.arguments)

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        return {
            key.removeprefix(prefix): self[key] for key in self.arrays if key.startswith(prefix)
        }

    def parameters(self, prefix: str) -> dict[str, torch.Tensor]:
        return from_official(self.under(prefix), self.config, self.kind)

    def model(self, stored_tables: bool = True) -> DiT:
        return self.load_into(DiT(self.config, self.data).double(), stored_tables)

    def load_into(self, model: DiT, stored_tables: bool = True) -> DiT:
        """The stored weights and tables in the place of the model's own."""
        parameters, ours = self.parameters("param/"), dict(model.named_parameters())
        assert parameters.keys() == ours.keys()
        for name, value in parameters.items():
            assert value.shape == ours[name].shape, name
            ours[name].data.copy_(value)
        buffers = dict(model.named_buffers())
        stored = self.under("buffer/")
        assert stored.keys() == {BUFFERS[name] for name in buffers}
        for name, buffer in buffers.items():
            random = name in ("time.features.scale", "time.features.shift")
            if stored_tables or random:
                buffer.copy_(stored[BUFFERS[name]].reshape(buffer.shape))
        return model

    def inputs(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self["x"], self["t"], self["y"]


def close(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float) -> bool:
    """Largest difference relative to the largest number."""
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())
