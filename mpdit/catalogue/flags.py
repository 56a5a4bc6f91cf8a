"""The flags: switches of the model that a grid turns on, each a row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from mpdit.catalogue.registry import NAME, Registry, Row, decorator
from mpdit.errors import ConfigError, nearest

PAPER = "arXiv:2505.19122"
EDM2 = "arXiv:2312.02696"


@dataclass(frozen=True, kw_only=True)
class Flag(Row):
    """A switch of the model, off unless a grid turns it on.

    Attributes:
        code: its short name in run names and tables.
        needs: flags that must be on as well, each with the reason.
        implementation: called with the built `mpdit.model.DiT` before its weights are initialized,
            to change it in place. None for the paper's eight, which the layers implement.
        is_conditioning: whether the flag changes the conditioning. A variant with such a flag is
            compared with variants that have the same other flags and another conditioning.
    """

    facts: ClassVar[tuple[str, ...]] = ("code",)

    code: str
    needs: Mapping[str, str] = field(default_factory=dict)
    is_conditioning: bool = False

    def check_against(self, others: Mapping[str, Flag]) -> None:
        where = f"the flag {self.name!r}"
        if taken := [row.name for row in others.values() if row.code == self.code]:
            raise ConfigError(
                f"{where}: the code {self.code!r} is taken by {taken[0]!r}. Choose another"
            )
        if not NAME.fullmatch(self.code):
            raise ConfigError(f"{where}: the code {self.code!r} is not of letters, digits, _, -")
        if not isinstance(self.needs, Mapping):
            raise ConfigError(f"{where}: needs should be a mapping of flags to reasons")
        for other in self.needs:
            if other not in others:
                hint = nearest(str(other), others)
                raise ConfigError(f"{where}: needs: {other!r} is not one of the flags.{hint}")


PAPERS_FLAGS = (
    "cosine_attention",
    "weight_normalization",
    "forced_weight_normalization",
    "mp_residual",
    "mp_silu",
    "no_layernorm",
    "mp_pos_enc",
    "mp_embedding",
)
"""The eight switches of the paper, under their official names: fields of `ModelConfig`. "All" in a
preset, a table or a figure is these eight, whatever is added to the table later."""

FLAGS = Registry(
    "flag",
    Flag,
    "model",
    [
        Flag(
            name="cosine_attention",
            code="cos",
            does="q and k of every head at unit magnitude before their product (qk_norm: cosine)",
            source=f"{EDM2} section 4.2",
        ),
        Flag(
            name="weight_normalization",
            code="wn",
            does="rows of every weight matrix normalized before use",
            source=f"{EDM2} eq. 47",
        ),
        Flag(
            name="forced_weight_normalization",
            code="fwn",
            does="stored weights replaced by their normalized ones before each training step",
            source=f"{EDM2} eq. 66",
            needs={
                "weight_normalization": "forced normalization of the stored weights makes sense "
                "only if the model uses normalized weights"
            },
        ),
        Flag(
            name="mp_residual",
            code="res",
            does="residual and embedding sums by mp_sum, which keeps unit magnitude",
            source=f"{EDM2} eq. 88",
        ),
        Flag(
            name="mp_silu",
            code="silu",
            does="SiLU divided by its magnitude, 0.596",
            source=f"{EDM2} eq. 81",
        ),
        Flag(
            name="no_layernorm",
            code="noln",
            does="no norm before attention, MLP and the final layer (norm: none)",
            source=PAPER,
        ),
        Flag(
            name="mp_pos_enc",
            code="pos",
            does="position encodings normalized per token",
            source=PAPER,
        ),
        Flag(
            name="mp_embedding",
            code="emb",
            does="label embeddings normalized; timesteps embedded by a learned table, not by sines",
            source=PAPER,
        ),
        Flag(
            name="shared_modulation",
            code="single",
            does="adaLN-single: one modulation map S of c for all blocks; each block adds a "
            "learned vector E (zero at initialization) and uses S(c) + E; the final layer keeps "
            "its own map; not with blended_shift, whose map alone gives values of unit magnitude",
            source="arXiv:2310.00426 section 2.3",
            implementation="mpdit.model.dit:share",
            is_conditioning=True,
        ),
        Flag(
            name="learned_uncertainty",
            code="unc",
            does="edm's loss weighted by its expected value: loss / e^u(σ) + u(σ), where u is a "
            "linear map of 128 Fourier features; not used in sampling",
            source=f"{EDM2} eq. 14 to 16, 21",
            implementation="mpdit.model.dit:learn_uncertainty",
        ),
    ],
    note="in a grid, each flag is set by its name alone",
)


def flag(
    name: str, *, code: str, does: str, source: str = "", needs: Mapping[str, str] | None = None
) -> Callable[[Any], Any]:
    """Register a function ``(model: DiT) -> None`` that changes a built model in place as a flag.

    Args:
        name: the key that turns the flag on in a grid.
        code: the flag's short name in run names and tables: letters, digits, ``_`` and ``-``.
        does: what the flag does, in one line.
        source: paper and equation.
        needs: flag → reason, for other flags that must be on as well. A config without one of them
            is refused, and the message gives the reason.

    Raises:
        ConfigError: when the name or the code is taken, or cannot be one; when ``needs`` is not a
            mapping of flags.
    """
    needs = {} if needs is None else needs
    return decorator(FLAGS, name=name, code=code, does=does, source=source, needs=needs)


def part_conditioning(names: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split flags into those that change the conditioning and the others; unknown: others."""
    names = tuple(names)
    of_it = tuple(name for name in names if name in FLAGS and FLAGS[name].is_conditioning)
    return of_it, tuple(name for name in names if name not in of_it)


def code_of(name: str) -> str:
    """Return a flag's short name, or its full name if its extension is not loaded."""
    return FLAGS[name].code if name in FLAGS else name
