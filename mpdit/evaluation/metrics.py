"""Features → numbers, in float64.

Kernel distance, neighbours and scores are torch-fidelity's arithmetic; the Fréchet distance is
computed here, from symmetric matrices. torch-fidelity is imported where it is called: that takes
seconds, and most runs measure the Fréchet distance alone.
`mpdit.catalogue.measures` has their names and requirements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64, Shaped
from torch import Tensor

from mpdit.catalogue import METRICS
from mpdit.errors import ConfigError
from mpdit.evaluation.extractors.extractor import Features
from mpdit.evaluation.realimages import Record

KID_SUBSETS = 100
KID_SUBSET_SIZE = 1000
SCORE_SPLITS = 10
PARTS = (1, 2, 4)
"""Numbers of disjoint subsets of the samples in the extrapolation."""


class Statistics(NamedTuple):
    """The statistics of a set of features, for the Fréchet distance."""

    mean: Float64[np.ndarray, " features"]
    covariance: Float64[np.ndarray, "features features"]


class Score(NamedTuple):
    """A mean over subsets, and the standard deviation between them.

    Attributes:
        subset_std: None where a subset is a whole set of images, so the subsets do not vary.
    """

    value: float
    subset_std: float | None


@dataclass(frozen=True)
class Reference:
    """The features of real images.

    Attributes:
        record: data, split, count (images behind the statistics; None where a file does not say),
            hash, preprocessing.
        pooled: features for the metrics that need more than statistics; None where not needed.
        pooled_record: the record of the images behind ``pooled``; it differs from ``record`` where
            a file has both statistics and images.
    """

    record: Record
    statistics: Statistics
    pooled: Float32[np.ndarray, "images features"] | None
    pooled_record: Record

    @property
    def features(self) -> Float32[np.ndarray, "images features"]:
        """``pooled``, for a metric whose row says that it needs them."""
        assert self.pooled is not None, "the metric's row does not say needs_features"
        return self.pooled


class Limit(NamedTuple):
    """The 1/N fit at N → ∞, with its error of sampling and of the line together; ``points`` are
    (N, mean distance of the disjoint subsets of N)."""

    value: float
    standard_error: float
    points: tuple[tuple[int, float], ...]


def statistics(features: Float[np.ndarray, "images features"]) -> Statistics:
    """Mean and unbiased covariance, in float64."""
    rows = np.asarray(features, np.float64)
    return Statistics(rows.mean(0), np.cov(rows, rowvar=False))


def accumulate(batches: Iterable[Float32[np.ndarray, "batch features"]]) -> Statistics:
    """`statistics` of features of which only a batch is in memory (Chan et al. 1979)."""
    count, mean, scatter = 0, np.zeros(1), np.zeros((1, 1))
    for batch in batches:
        rows = batch.astype(np.float64)
        off = rows.mean(0) - mean
        rows -= rows.mean(0)
        total = count + len(rows)
        scatter = scatter + rows.T @ rows + np.outer(off, off) * (count * len(rows) / total)
        mean = mean + off * (len(rows) / total)
        count = total
    return Statistics(mean, scatter / (count - 1))


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) (Heusel et al. 2017).

    With Σ = F Fᵀ the eigenvalues of Σ₁Σ₂ are those of the symmetric F₁ᵀ Σ₂ F₁, which cost less than
    those of a product that is not symmetric, and are never complex.

    A singular covariance (fewer samples than features) needs no special case: directions in which
    it is zero to rounding take no part, so that their noise, √ε of the largest eigenvalue in each,
    does not add up. The number is then exact for these covariances, and describes the model as
    poorly as they do.
    """
    off = a.mean - b.mean
    spread = np.trace(a.covariance) + np.trace(b.covariance)
    return float(off @ off + spread - 2 * _trace_of_root(a.covariance, b.covariance))


def _trace_of_root(
    a: Float64[np.ndarray, "features features"], b: Float64[np.ndarray, "features features"]
) -> float:
    """tr (ab)^½: the sum of the singular values of F₁ᵀ F₂."""
    product = _factor(a).T @ _factor(b)
    if len(product) > product.shape[1]:  # the smaller Gram matrix has no more zeros than it must
        product = product.T
    return float(np.sqrt(np.linalg.eigvalsh(product @ product.T).clip(min=0)).sum())


def _factor(
    covariance: Float64[np.ndarray, "features features"],
) -> Float64[np.ndarray, "features rank"]:
    """F with F Fᵀ = Σ: Cholesky's, or eigenvectors where Σ is singular to rounding."""
    least = len(covariance) * np.finfo(np.float64).eps
    with suppress(np.linalg.LinAlgError):  # a pivot is not positive
        lower = np.linalg.cholesky(covariance)
        pivots = np.diag(lower) ** 2
        if pivots.min() > least * pivots.max():
            return lower
    values, vectors = np.linalg.eigh(covariance)
    kept = values > least * values[-1]
    factor: np.ndarray = vectors[:, kept] * np.sqrt(values[kept])
    return factor


def kernel_distance(
    a: Float[np.ndarray, "m features"], b: Float[np.ndarray, "n features"]
) -> Score:
    """The unbiased MMD² of the kernel (x·y/features + 1)³, over 100 subsets of at most 1,000
    (Bińkowski et al. 2018).

    Where a subset is the whole of ``a`` or of ``b``, it has no spread over that set's images:
    none is given. Where it is the whole of both, there is one value, computed once.
    """
    from torch_fidelity import metric_kid

    size = min(KID_SUBSET_SIZE, len(a), len(b))
    found = metric_kid.kid_features_to_metric(
        _doubles(a),
        _doubles(b),
        kid_subsets=1 if size == len(a) == len(b) else KID_SUBSETS,
        kid_subset_size=size,
        verbose=False,
    )
    spread = None if size in (len(a), len(b)) else found[metric_kid.KEY_METRIC_KID_STD]
    return Score(found[metric_kid.KEY_METRIC_KID_MEAN], spread)


def precision_recall(
    samples: Float[np.ndarray, "m features"], real: Float[np.ndarray, "n features"]
) -> tuple[float, float]:
    """The share of samples within reach of a real image, and the reverse; reach is the distance to
    the third neighbour of the same set, in the features' own precision (Kynkäänniemi et al.
    2019).

    The real images' mean is subtracted first: float32's |x|² + |y|² − 2 x·y loses the distance
    between features that are far from zero and near one another.
    """
    from torch_fidelity import metric_prc

    centre = real.mean(0, dtype=np.float64).astype(real.dtype)  # any point near it does
    found = metric_prc.prc_features_to_metric(
        torch.from_numpy(samples - centre),
        torch.from_numpy(real - centre),
        save_cpu_ram=True,
        prc_batch_size=1000,  # all 60,000² distances at once are 14 GB
        verbose=False,
    )
    return found[metric_prc.KEY_METRIC_PRECISION], found[metric_prc.KEY_METRIC_RECALL]


def inception_score(logits: Float[np.ndarray, "images classes"]) -> Score:
    """exp E KL(p(y|x) ‖ p(y)) over ten splits (Salimans et al. 2016).

    The score is at most the number of images in a split, because p(y) is their mean: one image a
    split always gives 1. The metric's row requires ten a split.
    """
    from torch_fidelity import metric_isc

    found = metric_isc.isc_features_to_metric(_doubles(logits), splits=SCORE_SPLITS)
    return Score(found[metric_isc.KEY_METRIC_ISC_MEAN], found[metric_isc.KEY_METRIC_ISC_STD])


# The metrics' rows ------------------------------------------------------------------------------


def measure_fd(samples: Features, real: Reference) -> float:
    return frechet_distance(statistics(samples.pooled), real.statistics)


def measure_kid(samples: Features, real: Reference) -> Score:
    return kernel_distance(samples.pooled, real.features)


def measure_precision_recall(samples: Features, real: Reference) -> tuple[float, float]:
    return precision_recall(samples.pooled, real.features)


def measure_inception_score(samples: Features, real: Reference) -> Score:
    del real
    return inception_score(samples.logits)


def measure(metric: str, samples: Features, real: Reference) -> list[dict[str, float]]:
    """Measure a metric: for each of its labels a value, and its spread over subsets if it has one.

    Raises:
        ConfigError: when the metric's code gives something else.
    """
    row = METRICS.find(metric)
    found = row.load()(samples, real)
    values = [found] if isinstance(found, Score | float | int | np.floating) else list(found)
    if len(values) != len(row.labels):
        raise ConfigError(f"{metric} gave {len(values)} values for {', '.join(row.labels)}")
    return [_fields(value) for value in values]


def _fields(value: Any) -> dict[str, float]:
    """The fields of a value in its row of evaluation.jsonl."""
    if not isinstance(value, Score):
        return {"value": float(value)}
    return {name: number for name, number in value._asdict().items() if number is not None}


# Extrapolation ----------------------------------------------------------------------------------


def deal(classes: Int64[np.ndarray, " images"], parts: int) -> list[Int64[np.ndarray, " part"]]:
    """The indices of ``parts`` disjoint subsets of equal size, each with the classes of the whole.

    Images left over by the division are in no subset.
    """
    by_class = np.argsort(classes, kind="stable")
    size = len(classes) // parts
    return [by_class[part::parts][:size] for part in range(parts)]


def extrapolate(
    features: Float32[np.ndarray, "images features"],
    classes: Int64[np.ndarray, " images"],
    reference: Statistics,
) -> Limit | None:
    """Extrapolate the Fréchet distance to N → ∞ by a line in 1/N (Chong and Forsyth 2020).

    The line goes through the means over 1, 2 and 4 disjoint subsets. Its intercept moves with the
    samples as their mean influence does, in all three alike, so that its error of sampling is that
    of the mean over the four quarters (three degrees of freedom). Where N is few times the number
    of features the points lie on a curve, and the limit is too low: the bend, by how much the
    intercept through the last two points differs from that through the first two, is added in
    quadrature.

    Returns:
        None where a quarter has fewer samples than there are features (its covariance is singular).
        A limit below zero stays: without it, the mean over seeds would be too high.
    """
    if len(features) // max(PARTS) < features.shape[1]:
        return None
    values = [
        [frechet_distance(statistics(features[part]), reference) for part in deal(classes, parts)]
        for parts in PARTS
    ]
    counts = [len(features) // parts for parts in PARTS]
    means = [float(np.mean(of_size)) for of_size in values]
    _, limit = np.polyfit(1 / np.array(counts), means, 1)
    quarters = values[-1]
    noise = float(np.std(quarters, ddof=1) / len(quarters) ** 0.5)
    whole, halves, fourths = means
    bend = (2 * whole - halves) - (2 * halves - fourths)
    error = math.hypot(noise, bend)
    return Limit(float(limit), error, tuple(zip(counts, means, strict=True)))


def _doubles(array: Shaped[np.ndarray, "rows columns"]) -> Float64[Tensor, "rows columns"]:
    return torch.from_numpy(np.asarray(array, np.float64))
