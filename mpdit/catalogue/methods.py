"""Solvers, objectives and feature extractors, each a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from mpdit.catalogue.registry import Registry, Row, decorator
from mpdit.catalogue.respacing import respacing_matters


@dataclass(frozen=True, kw_only=True)
class SolverRow(Row):
    """A way from noise to samples: a subclass of `mpdit.diffusion.solvers.Solver`.

    Attributes:
        evenly: whether its timesteps are spaced evenly, so that ``sample.respacing`` applies.
    """

    facts: ClassVar[tuple[str, ...]] = ("evenly",)

    evenly: bool = True

    def depends_on_respacing(self, steps: int) -> bool:
        """Whether the values of ``sample.respacing`` give different samples."""
        return self.evenly and respacing_matters(steps)


SOLVERS = Registry(
    "solver",
    SolverRow,
    "sample.solver",
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


OBJECTIVES = Registry(
    "objective",
    Row,
    "train.objective",
    [
        Row(
            name="epsilon",
            does="the noise ε, with learned-range variance",
            source="arXiv:2006.11239 eq. 14, arXiv:2102.09672 section 3.1",
            implementation="mpdit.diffusion.objectives:Epsilon",
        ),
    ],
)


@dataclass(frozen=True)
class Weights:
    """A file of weights that does not come with the package, and that no run downloads.

    ``evaluate.<extractor's name>`` or the environment variable names its place on a machine.
    """

    url: str
    megabytes: int
    variable: str

    @property
    def file(self) -> str:
        """Its name in torch's hub cache."""
        return self.url.rpartition("/")[2]


INCEPTION = Weights(
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    megabytes=95,
    variable="MPDIT_INCEPTION",
)
DINOV2 = Weights(
    url="https://dl.fbaipublicfiles.com/dinov2/dinov2_vitl14/dinov2_vitl14_pretrain.pth",
    megabytes=1218,
    variable="MPDIT_DINOV2",
)


@dataclass(frozen=True, kw_only=True)
class ExtractorRow(Row):
    """A network in whose features distances are taken.

    Attributes:
        title: what messages call it.
        channels: of the images that it takes; None takes grey and colour.
        numbers: features and logits of an image, which are kept of every sample.
        classes: whether it has logits.
        weights: None where they come with the package.
        implementation: ``(file of the weights, device) -> Extractor``; in place of the file its
            own name where they come with the package.
    """

    title: str
    channels: int | None
    numbers: int
    classes: bool = True
    weights: Weights | None = None


EXTRACTORS = Registry(
    "extractor",
    ExtractorRow,
    "evaluate.extractor",
    [
        *(
            ExtractorRow(
                name=name,
                title=f"the classifier of {name}",
                does=f"a small classifier of {name} that ships with the package",
                channels=1,
                numbers=64 + 10,
                implementation="mpdit.evaluation.extractors.classifier:load",
            )
            for name in ("digits", "fashion-mnist")
        ),
        ExtractorRow(
            name="inception",
            title="Inception",
            does="Inception v3 of 2015, the network of FID",
            source="torch-fidelity",
            channels=None,
            numbers=2048 + 1008,
            weights=INCEPTION,
            implementation="mpdit.evaluation.extractors.inception:load",
        ),
        ExtractorRow(
            name="dinov2",
            title="DINOv2",
            does="DINOv2 ViT-L/14, the network of FD-DINOv2; it has no classes",
            source="arXiv:2304.07193, arXiv:2306.04675; images prepared as by torch-fidelity",
            channels=None,
            numbers=1024,
            classes=False,
            weights=DINOV2,
            implementation="mpdit.evaluation.extractors.dinov2:load",
        ),
    ],
)


def solver(name: str, *, does: str, source: str = "", evenly: bool = True) -> Callable[[Any], Any]:
    """Register a subclass of `mpdit.diffusion.solvers.Solver` as a solver (see `SolverRow`).

    Raises:
        ConfigError: when the name is taken.
    """
    return decorator(SOLVERS, name=name, does=does, source=source, evenly=evenly)


def objective(name: str, *, does: str, source: str = "") -> Callable[[Any], Any]:
    """Register a subclass of `mpdit.diffusion.objectives.Objective` as an objective.

    Raises:
        ConfigError: when the name is taken.
    """
    return decorator(OBJECTIVES, name=name, does=does, source=source)
