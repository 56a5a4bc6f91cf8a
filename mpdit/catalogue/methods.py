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
        continuous: whether it is for objectives of continuous time, on ``(objective, steps)``.
        evaluations: evaluations of the model per step; the last step needs one.
    """

    facts: ClassVar[tuple[str, ...]] = ("evenly", "continuous", "evaluations")

    evenly: bool = True
    continuous: bool = False
    evaluations: int = 1

    def depends_on_respacing(self, steps: int) -> bool:
        """Whether the values of ``sample.respacing`` give different samples."""
        return self.evenly and respacing_matters(steps)

    def passes(self, steps: int) -> int:
        """Return how often the model is evaluated in ``steps`` steps."""
        return self.evaluations * (steps - 1) + 1


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
            does="deterministic steps of first order: √ᾱ′ x₀ + √(1 − ᾱ′) ε, ᾱ′ of the next step",
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
        SolverRow(
            name="heun",
            does="Heun's method for flow and edm, of second order: x + h (d(x) + d(x + h d(x))) / "
            "2, two evaluations of d = dx/dt per step",
            source="arXiv:2206.00364 algorithm 1",
            evenly=False,
            continuous=True,
            evaluations=2,
            implementation="mpdit.diffusion.solvers:Heun",
        ),
    ],
)


@dataclass(frozen=True, kw_only=True)
class ObjectiveRow(Row):
    """A prediction target: a subclass of `mpdit.diffusion.objectives.Objective`.

    Attributes:
        continuous: whether its times are real numbers instead of the 1000 timesteps; then it is a
            subclass of `mpdit.diffusion.continuous.Continuous`.
    """

    facts: ClassVar[tuple[str, ...]] = ("continuous",)

    continuous: bool = False


OBJECTIVES = Registry(
    "objective",
    ObjectiveRow,
    "train.objective",
    [
        ObjectiveRow(
            name="epsilon",
            does="the noise ε, with learned-range variance",
            source="arXiv:2006.11239 eq. 14, arXiv:2102.09672 section 3.1",
            implementation="mpdit.diffusion.objectives:Epsilon",
        ),
        ObjectiveRow(
            name="v",
            does="v = √ᾱ ε − √(1 − ᾱ) x₀, with learned-range variance",
            source="arXiv:2202.00512 appendix D",
            implementation="mpdit.diffusion.objectives:V",
        ),
        ObjectiveRow(
            name="x",
            does="the image x₀, weighted by max(ᾱ / (1 − ᾱ), 1), with learned-range variance",
            source="arXiv:2202.00512 section 4",
            implementation="mpdit.diffusion.objectives:X",
        ),
        ObjectiveRow(
            name="flow",
            does="the velocity ε − x₀ of x_t = (1 − t) x₀ + t ε, t uniform in [0, 1]",
            source="arXiv:2209.03003 eq. 1, arXiv:2401.08740 (linear path)",
            continuous=True,
            implementation="mpdit.diffusion.continuous:Flow",
        ),
        ObjectiveRow(
            name="edm",
            does="F of EDM's denoiser D = x / (1 + 4σ²) + σ F / √(1 + 4σ²), x = x₀ + σ ε, ln σ "
            "normal (−0.4, 1) as in EDM2",
            source="arXiv:2206.00364 table 1 and eq. 7, arXiv:2312.02696",
            continuous=True,
            implementation="mpdit.diffusion.continuous:EDM",
        ),
    ],
)


@dataclass(frozen=True)
class Weights:
    """A file of weights that the package does not contain and that no run downloads.

    ``evaluate.<extractor's name>`` or the environment variable sets its path.
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
    """A network whose features are compared.

    Attributes:
        title: its name in messages.
        channels: channels of its input images; None: grey and colour.
        numbers: the number of features and logits of an image; all are kept for every sample.
        classes: whether it has logits.
        weights: the file of weights; None if the package contains them.
        implementation: ``(file of the weights, device) -> Extractor``. If the package contains the
            weights, the first argument is the extractor's name.
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


def solver(
    name: str,
    *,
    does: str,
    source: str = "",
    evenly: bool = True,
    continuous: bool = False,
    evaluations: int = 1,
) -> Callable[[Any], Any]:
    """Register a subclass of `mpdit.diffusion.solvers.Solver` as a solver.

    Args:
        name: the solver's name in ``sample.solver``.
        does: what the solver does, in one line.
        source: paper and equation.
        evenly: whether its timesteps are spaced evenly, so that ``sample.respacing`` applies.
        continuous: whether it is for objectives of continuous time (``flow``, ``edm``). It is then
            created with (objective, steps) instead of (diffusion, steps).
        evaluations: evaluations of the model per step; the last step needs one.

    Raises:
        ConfigError: when the name is taken.
    """
    facts = {"evenly": evenly, "continuous": continuous, "evaluations": evaluations}
    return decorator(SOLVERS, name=name, does=does, source=source, **facts)


def objective(
    name: str, *, does: str, source: str = "", continuous: bool = False
) -> Callable[[Any], Any]:
    """Register a subclass of `mpdit.diffusion.objectives.Objective` as an objective.

    Args:
        name: the objective's name in ``train.objective``.
        does: what the model predicts, in one line.
        source: paper and equation.
        continuous: whether its times are real numbers instead of the 1000 timesteps. The class is
            then a subclass of `mpdit.diffusion.continuous.Continuous`.

    Raises:
        ConfigError: when the name is taken.
    """
    return decorator(OBJECTIVES, name=name, does=does, source=source, continuous=continuous)
