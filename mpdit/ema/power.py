"""Power-function averages of the weights, and the weights of any other profile made from them.

EDM2 (Karras et al., arXiv:2312.02696), section 3 and algorithm 3. The official map-dit code has
the update inverted, with β on the new weights; here it is the paper's.

``python -m mpdit.ema RUN --std 0.03`` reconstructs the average of another width
(`mpdit.ema.posthoc`).
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mpdit.disk.files import written_aside
from mpdit.disk.identity import Mark, parse_mark
from mpdit.disk.npz import DamagedError

METADATA = "mpdit"
"""The key of a snapshot's metadata: JSON of its tensors' checksums and its mark."""


def gamma_of(std: float) -> float:
    """Return γ of the profile τ^γ with relative width ``std``.

    It is the largest real root of γ³ + 7γ² + (16 − σ⁻²)γ + (12 − σ⁻²) = 0 (EDM2 eq. 126).
    """
    inverse = std**-2
    roots = np.roots([1, 7, 16 - inverse, 12 - inverse])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-9))


def beta(step: int, gamma: float) -> float:
    """Return the average's weight of itself at step 1, 2, …: (1 − 1/step)^(γ+1) (EDM2 eq. 127)."""
    return float((1 - 1 / step) ** (gamma + 1))


class PowerEMA:
    """One average of the weights for each relative width.

    Args:
        parameters: the weights to average, read in place at each update.
        stds: relative widths.

    Attributes:
        averages: width → tensors in the order of the parameters.
    """

    def __init__(self, parameters: Iterable[Tensor], stds: Sequence[float]) -> None:
        self.parameters = [parameter.detach() for parameter in parameters]
        self.gammas = {std: gamma_of(std) for std in stds}
        self.averages = {std: [p.clone() for p in self.parameters] for std in stds}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update after optimizer step 1, 2, …: ema ← β ema + (1 − β) w."""
        shares = [1 - beta(step, gamma) for gamma in self.gammas.values()]
        # all averages of a weight are adjacent: a CPU reads the weight from memory once
        averages = [a for of_weight in zip(*self.averages.values(), strict=True) for a in of_weight]
        weights = [weight for weight in self.parameters for _ in shares]
        torch._foreach_lerp_(averages, weights, shares * len(self.parameters))

    def state_dict(self) -> dict[str, Any]:
        return {str(std): average for std, average in self.averages.items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises KeyError when a width is missing from the state."""
        for std, average in self.averages.items():
            torch._foreach_copy_(average, state[str(std)])


def whole_model(model: torch.nn.Module, average: Sequence[Tensor]) -> dict[str, Tensor]:
    """A model's state in which an average replaces the parameters; its tables remain."""
    names = [name for name, _ in model.named_parameters()]
    return {**model.state_dict(), **dict(zip(names, average, strict=True))}


def snapshot_file(folder: Path, std: float, step: int) -> Path:
    """Return the file of the EMA of relative width ``std`` after ``step`` steps."""
    return folder / f"std{std:.3f}_step{step:08d}.safetensors"


def write_snapshot(file: Path, tensors: dict[str, Tensor], mark: Mark | None = None) -> None:
    """Replace ``file`` by a whole model's weights and tables, with their checksums.

    Args:
        mark: the run and data that they belong to.

    Raises:
        OSError: when the disk is full; the old content is kept.
    """
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    about: dict[str, Any] = {"sha256": {name: _digest(t) for name, t in tensors.items()}}
    if mark:
        about["identity"] = mark
    # one key: safetensors writes several in any order, and the same snapshot is the same bytes
    metadata = {METADATA: json.dumps(about, sort_keys=True)}
    with written_aside(file) as temporary:
        mode = temporary.stat().st_mode  # by the umask; safetensors would set 0600
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # only its text has the system's error number
            code = re.search(r"(?:os error|code:) (\d+)", str(error))
            number = int(code[1]) if code else errno.EIO
            size = sum(tensor.nbytes for tensor in tensors.values()) / 1e6
            reason = f"{os.strerror(number)}; a snapshot takes {size:,.1f} MB"
            raise OSError(number, reason) from None
        temporary.chmod(mode)


class SnapshotFile:
    """An opened snapshot; a tensor is compared with its checksum when it is read.

    Those of version 0.1 have no checksums. The file is mapped until it is closed.

    Attributes:
        mark: the run and data that it belongs to; empty where it has none.

    Raises:
        DamagedError: when it is torn.
    """

    _opened: Any

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._opened = safe_open(file, "pt")
        except SafetensorError as error:
            raise DamagedError(f"{file} is damaged ({error})") from None
        about = parse_mark((self._opened.metadata() or {}).get(METADATA))
        self._sums: Mapping[str, str] = about.get("sha256", {})
        self.mark: Mark = about.get("identity", {})

    def __enter__(self) -> SnapshotFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.__exit__(None, None, None)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor, by name, without reading the tensors."""
        names = self._opened.keys()
        return {name: tuple(self._opened.get_slice(name).get_shape()) for name in names}

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU.

        Raises:
            DamagedError: when it is not what was written.
        """
        tensor: Tensor = self._opened.get_tensor(name)
        if self._sums and _digest(tensor) != self._sums.get(name):
            raise DamagedError(f"{self.file} is damaged ({name} is not what was written)")
        return tensor

    def read_all(self) -> dict[str, Tensor]:
        """A whole model's weights and tables, on the CPU.

        Raises:
            DamagedError: as `read`.
        """
        return {name: self.read(name) for name in self.shapes()}


def _digest(tensor: Tensor) -> str:
    """Sixteen hex digits of the SHA-256 of a tensor on the CPU."""
    numbers = tensor.contiguous().flatten().view(torch.uint8).numpy()
    return hashlib.sha256(numbers.data).hexdigest()[:16]


def posthoc_weights(
    in_steps: Sequence[int],
    in_stds: Sequence[float],
    out_steps: Sequence[int],
    out_stds: Sequence[float],
) -> Float[np.ndarray, "snapshots profiles"]:
    """Return the weight of each stored snapshot in each wanted average (EDM2 algorithm 3).

    Args:
        in_steps, in_stds: training step and relative width of each stored snapshot.
        out_steps, out_stds: the same for each wanted average.

    Returns:
        The least-squares weights of the snapshots, one column for each wanted average, of sum 1.
    """
    given, wanted = _profiles(in_steps, in_stds), _profiles(out_steps, out_stds)
    weights = np.linalg.solve(_inner_products(*given, *given), _inner_products(*given, *wanted))
    normalized: np.ndarray = weights / weights.sum(axis=0)
    return normalized


def posthoc_errors(
    weights: Float[np.ndarray, "snapshots profiles"],
    in_steps: Sequence[int],
    in_stds: Sequence[float],
    out_steps: Sequence[int],
    out_stds: Sequence[float],
) -> Float[np.ndarray, " profiles"]:
    """Return each combined profile's relative L² error, ‖Σ wᵢ pᵢ − p‖ / ‖p‖.

    The arguments are those of `posthoc_weights` and its result. Rounding hides errors below about
    1e-7.
    """
    given, wanted = _profiles(in_steps, in_stds), _profiles(out_steps, out_stds)
    squared = _inner_products(*wanted, *wanted).diagonal()  # ‖p‖²
    cross = (weights * _inner_products(*given, *wanted)).sum(axis=0)
    combined = (weights * (_inner_products(*given, *given) @ weights)).sum(axis=0)
    errors: np.ndarray = np.sqrt(np.maximum(combined - 2 * cross + squared, 0) / squared)
    return errors


def _profiles(
    steps: Sequence[int], stds: Sequence[float]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return the ends of profiles, and their γ."""
    gammas = {std: gamma_of(std) for std in set(stds)}
    return np.asarray(steps, float), np.array([gammas[std] for std in stds])


def _inner_products(
    steps_a: Float[np.ndarray, " a"],
    gammas_a: Float[np.ndarray, " a"],
    steps_b: Float[np.ndarray, " b"],
    gammas_b: Float[np.ndarray, " b"],
) -> Float[np.ndarray, "a b"]:
    """Return ∫ p_a p_b dτ of profiles p = (γ+1) τ^γ / t^(γ+1) on [0, t] (EDM2 eq. 151)."""
    t_a, t_b = steps_a[:, None], steps_b[None, :]
    g_a, g_b = gammas_a[:, None], gammas_b[None, :]
    # min^(γa+γb+1) / (ta^(γa+1) tb^(γb+1)), without the large powers
    common = np.minimum(t_a / t_b, 1) ** g_b * np.minimum(t_b / t_a, 1) ** g_a
    overlap: Float[np.ndarray, "a b"] = (
        (g_a + 1) * (g_b + 1) / (g_a + g_b + 1) * common / np.maximum(t_a, t_b)
    )
    return overlap
