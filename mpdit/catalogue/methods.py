"""Solvers, objectives and feature extractors, each a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpdit.catalogue.registry import Row, Table, decorator
from mpdit.catalogue.respacing import respacing_matters


@dataclass(frozen=True, kw_only=True)
class SolverRow(Row):
    """A way from noise to samples: a subclass of `mpdit.diffusion.solvers.Solver`.

    Attributes:
        evenly: whether its timesteps are spaced evenly, so that ``sample.respacing`` applies.
    """

    evenly: bool = True

    def depends_on_respacing(self, steps: int) -> bool:
        """Whether the values of ``sample.respacing`` give different samples."""
        return self.evenly and respacing_matters(steps)


SOLVERS = Table(
    "solver",
    SolverRow,
    [
        SolverRow(
            name="ddpm",
            does="ancestral steps with learned variance",
            source="arXiv:2006.11239 algorithm 2, arXiv:2102.09672 section 4",
            implementation="mpdit.diffusion.solvers:DDPM",
        ),
        SolverRow(
            name="ddim",
            does="deterministic steps of first order",
            source="arXiv:2010.02502 eq. 12, σ = 0",
            implementation="mpdit.diffusion.solvers:DDIM",
        ),
        SolverRow(
            name="dpm++",
            does="DPM-Solver++(2M): deterministic, of second order",
            source="arXiv:2211.01095 algorithm 2",
            evenly=False,
            implementation="mpdit.diffusion.solvers:DPMSolver2M",
        ),
    ],
)


@dataclass(frozen=True, kw_only=True)
class ObjectiveRow(Row):
    """What the model learns to predict: a subclass of `mpdit.diffusion.objectives.Objective`."""


OBJECTIVES = Table(
    "objective",
    ObjectiveRow,
    [
        ObjectiveRow(
            name="epsilon",
            does="the noise ε, with learned-range variance",
            source="arXiv:2006.11239 eq. 14, arXiv:2102.09672 section 3.1",
            implementation="mpdit.diffusion.objectives:Epsilon",
        ),
    ],
)


@dataclass(frozen=True, kw_only=True)
class ExtractorRow(Row):
    """A network in whose features distances are taken.

    Attributes:
        channels: of the images that it takes; None takes grey and colour.
        numbers: features and logits of an image, which are kept of every sample.
        implementation: ``(evaluate: EvaluateConfig, device) -> Extractor``.
    """

    channels: int | None
    numbers: int


EXTRACTORS = Table(
    "extractor",
    ExtractorRow,
    [
        *(
            ExtractorRow(
                name=name,
                does=f"a small classifier of {name} that ships with the package",
                channels=1,
                numbers=64 + 10,
                implementation="mpdit.evaluation.extractors.classifier:of_config",
            )
            for name in ("digits", "fashion-mnist")
        ),
        ExtractorRow(
            name="inception",
            does="Inception v3 of 2015, the network of FID",
            source="torch-fidelity",
            channels=None,
            numbers=2048 + 1008,
            implementation="mpdit.evaluation.extractors.inception:of_config",
        ),
    ],
)


def solver(name: str, *, does: str, source: str = "") -> Callable[[Any], Any]:
    """Register a subclass of `mpdit.diffusion.solvers.Solver` as a solver.

    Raises:
        ConfigError: when the name is taken.
    """
    return decorator(SOLVERS, name=name, does=does, source=source)


def objective(name: str, *, does: str, source: str = "") -> Callable[[Any], Any]:
    """Register a subclass of `mpdit.diffusion.objectives.Objective` as an objective.

    Raises:
        ConfigError: when the name is taken.
    """
    return decorator(OBJECTIVES, name=name, does=does, source=source)
