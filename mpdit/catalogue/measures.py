"""The metrics, each a row: its label, its requirements, and its code.

A number is labelled with its extractor and the number of samples (``FD-digits@500``): a distance in
another feature space, or from another number of samples, is another quantity. The labels FID, KID
and IS, without an extractor's name, are for Inception's features only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mpdit.catalogue.registry import Registry, Row, decorator
from mpdit.errors import ConfigError

Better = Literal["lower", "higher"]
Scale = Literal["ratio", "difference"]


@dataclass(frozen=True, kw_only=True)
class Metric(Row):
    """A metric by name.

    Attributes:
        labels: the names of its numbers, before the extractor's name.
        better: which of two values is the better one.
        distance: the kind of distance that it is, None where it is none.
        scale: how two values are compared: by their ratio if all values are positive, else by
            their difference.
        implementation: ``(samples: Features, real: Reference) -> value``, or a sequence with one
            value per label; a value is a float or a `Score`.
        least: the number of samples that it needs.
        needs_features: whether ``real.pooled`` is needed, not only ``real.statistics``.
        needs_classes: whether the extractor must have class logits.
        inception: its labels for Inception's features, without an extractor's name.
    """

    facts: ClassVar[tuple[str, ...]] = ("labels", "better")

    labels: tuple[str, ...]
    better: Better
    distance: Literal["Fréchet", "kernel"] | None = None
    scale: Scale = "difference"
    least: int = 2
    needs_features: bool = False
    needs_classes: bool = False
    inception: tuple[str, ...] | None = None

    def check_against(self, others: Mapping[str, Metric]) -> None:
        for label in self.labels:
            where = f"the metric {self.name!r}: the label {label!r}"
            if taken := [row.name for row in others.values() if label in row.all_labels]:
                raise ConfigError(f"{where} is taken by {taken[0]!r}. Choose another")
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", label):
                raise ConfigError(f"{where} is not of letters, digits, _")

    @property
    def all_labels(self) -> tuple[str, ...]:
        """All names of its numbers, for any extractor: ``FD`` and ``FID``."""
        return (*self.labels, *(self.inception or ()))

    def named(self, extractor: str, count: int | str) -> tuple[str, ...]:
        """Its labels: ``FD-digits@500``, or ``FID@500`` from Inception."""
        if extractor == "inception" and self.inception is not None:
            return tuple(f"{label}@{count}" for label in self.inception)
        return tuple(f"{label}-{extractor}@{count}" for label in self.labels)


def labelled(label: str) -> Metric | None:
    """The metric of a label: ``FD-digits@500`` and ``FD`` belong to the Fréchet distance."""
    name = label.split("@")[0].split("-")[0]
    return next((row for row in METRICS.values() if name in row.all_labels), None)


_MODULE = "mpdit.evaluation.metrics"

METRICS = Registry(
    "metric",
    Metric,
    "evaluate.metrics",
    [
        Metric(
            name="fd",
            labels=("FD",),
            inception=("FID",),
            better="lower",
            distance="Fréchet",
            scale="ratio",
            does="Fréchet distance of the features' normal distributions",
            source="Heusel et al., arXiv:1706.08500",
            implementation=f"{_MODULE}:measure_fd",
        ),
        Metric(
            name="kid",
            labels=("KD",),
            inception=("KID",),
            better="lower",
            distance="kernel",
            needs_features=True,
            does="kernel distance, the unbiased MMD² of a cubic kernel",
            source="Bińkowski et al., arXiv:1801.01401",
            implementation=f"{_MODULE}:measure_kid",
        ),
        Metric(
            name="precision_recall",
            labels=("precision", "recall"),
            better="higher",
            least=4,
            needs_features=True,
            does="fraction of samples near a real image; fraction of real images near a sample",
            source="Kynkäänniemi et al., arXiv:1904.06991",
            implementation=f"{_MODULE}:measure_precision_recall",
        ),
        Metric(
            name="inception_score",
            labels=("IS",),
            inception=("IS",),
            better="higher",
            least=100,
            needs_classes=True,
            does="exp of the mean KL divergence of class probabilities from their mean",
            source="Salimans et al., arXiv:1606.03498",
            implementation=f"{_MODULE}:measure_inception_score",
        ),
    ],
)


def metric(
    name: str,
    *,
    label: str,
    better: Better,
    does: str,
    source: str = "",
    least: int = 2,
    needs_features: bool = True,
) -> Callable[[Any], Any]:
    """Register a function ``(samples, real) -> float`` as a metric.

    ``samples.pooled`` (images, features) are the samples' features. ``real.statistics`` holds the
    ``mean`` and ``covariance`` of the real images' features, and ``real.features`` (images,
    features) the features themselves, if ``needs_features``.

    Args:
        name: the metric's name in ``evaluate.metrics``.
        label: the name of its number in results, before the extractor's: ``MD`` gives
            ``MD-digits@500``.
        better: which of two values is the better one, ``lower`` or ``higher``.
        does: what the metric measures, in one line.
        source: paper and equation.
        least: the number of samples that it needs.
        needs_features: whether the function uses ``real.features``. With False,
            ``real.statistics`` is enough, so a reference file without images can be used.

    Raises:
        ConfigError: when the name or the label is taken, or cannot be one.
    """
    return decorator(
        METRICS,
        name=name,
        labels=(label,),
        better=better,
        does=does,
        source=source,
        least=least,
        needs_features=needs_features,
    )
