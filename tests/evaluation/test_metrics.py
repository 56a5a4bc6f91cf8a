"""The arithmetic of the metrics against computations that share no line with it."""

import numpy as np
import pytest
import scipy.linalg
import torch
from safetensors import safe_open
from scipy.ndimage import gaussian_filter

from mpdit.catalogue import METRICS
from mpdit.config import DataConfig
from mpdit.data import datasets
from mpdit.data.preflight import check_evaluable
from mpdit.errors import ConfigError
from mpdit.evaluation import metrics
from mpdit.evaluation.extractors import classifier
from mpdit.evaluation.extractors.extractor import Features
from mpdit.evaluation.metrics import Reference, Statistics, frechet_distance, statistics
from tests.helpers.tiny import tiny_config

CPU = torch.device("cpu")
SHIPPED = ["digits", pytest.param("fashion-mnist", marks=pytest.mark.long)]
"""The data sets whose classifier comes with the package."""


def features(seed: int, n: int, d: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def scipy_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), by scipy's matrix square root."""
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * root))


def direct_mmd(a: np.ndarray, b: np.ndarray) -> float:
    """The unbiased MMD² of (x·y/d + 1)³, pair by pair."""
    d = a.shape[1]
    kernel = lambda x, y: (x @ y / d + 1) ** 3  # noqa: E731
    within = [
        np.mean([kernel(x, y) for i, x in enumerate(s) for j, y in enumerate(s) if i != j])
        for s in (a, b)
    ]
    return float(sum(within) - 2 * np.mean([kernel(x, y) for x in a for y in b]))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return frechet_distance(statistics(a), statistics(b))


def test_the_frechet_distance_equals_scipys() -> None:
    a, b = features(0, 500), features(1, 400)
    assert distance(a, b) == pytest.approx(scipy_distance(a, b), rel=1e-6)
    assert distance(a, a) == pytest.approx(0, abs=1e-9)


def test_the_frechet_distance_equals_scipys_to_nine_digits_where_it_is_well_conditioned() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        turn = np.linalg.qr(rng.normal(size=(64, 64)))[0]
        a = rng.normal(size=(500, 64)) * rng.uniform(0.5, 2, 64)
        b = rng.normal(size=(400, 64)) * rng.uniform(0.5, 2, 64) @ turn + 0.1
        assert distance(a, b) == pytest.approx(scipy_distance(a, b), rel=1e-9)


@pytest.mark.parametrize(("rank_a", "rank_b"), [(5, 12), (12, 5), (200, 5), (5, 200), (5, 5)])
def test_the_frechet_distance_of_singular_covariances_is_exact(rank_a: int, rank_b: int) -> None:
    """Diagonal covariances, turned: the root's trace is a sum over the axes that both have."""
    d, rng = 200, np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    spreads = [np.zeros(d), np.zeros(d)]
    for spread, rank in zip(spreads, (rank_a, rank_b), strict=True):
        spread[:rank] = rng.uniform(0.5, 2, rank)
    a, b = (Statistics(np.zeros(d), turn * spread @ turn.T) for spread in spreads)
    exact = ((np.sqrt(spreads[0]) - np.sqrt(spreads[1])) ** 2).sum()
    assert frechet_distance(a, b) == pytest.approx(exact, rel=1e-9, abs=1e-9)


def test_the_frechet_distance_of_fewer_samples_than_features_is_that_of_their_span() -> None:
    """24 and 36 images lie in 58 dimensions, where neither covariance has a root by Cholesky."""
    d, rng = 300, np.random.default_rng(1)
    a, b = rng.normal(size=(24, d)), rng.normal(size=(36, d))
    centred = [x - x.mean(0) for x in (a, b)]
    roots = [x / np.sqrt(len(x) - 1) for x in centred]
    shared = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()  # no square root in it
    exact = ((a.mean(0) - b.mean(0)) ** 2).sum() + sum((x**2).sum() for x in roots) - 2 * shared
    assert distance(a, b) == pytest.approx(exact, rel=1e-10)
    assert distance(a, a) == pytest.approx(0, abs=1e-9)


def test_images_that_are_all_alike_have_the_distance_of_the_means() -> None:
    same = np.ones((10, 16))
    assert distance(same, same + 2) == pytest.approx(64)


def test_the_kernel_distance_equals_a_direct_sum_over_pairs() -> None:
    a, b = features(0, 60), features(1, 60)  # one subset is all of them
    assert metrics.kernel_distance(a, b).value == pytest.approx(direct_mmd(a, b), rel=1e-6)


def test_float32_features_lose_nothing_in_the_arithmetic() -> None:
    a, b = (features(i, 300).astype(np.float32) + 50 for i in range(2))
    exact = scipy_distance(a.astype(np.float64), b.astype(np.float64))
    assert distance(a, b) == pytest.approx(exact, rel=1e-6)
    mmd = direct_mmd(a[:50].astype(np.float64), b[:50].astype(np.float64))
    assert metrics.kernel_distance(a[:50], b[:50]).value == pytest.approx(mmd, rel=1e-6)


def test_features_far_from_zero_lose_nothing_in_the_arithmetic() -> None:
    a, b = (features(i, 60).astype(np.float32) + np.float32(1000) for i in range(2))
    far = [x.astype(np.longdouble) for x in (a, b)]
    assert metrics.kernel_distance(a, b).value == pytest.approx(direct_mmd(*far), rel=1e-6)
    near = [x.astype(np.float64) - 1000 for x in (a, b)]  # exact, as float32 has 24 bits
    assert distance(a, b) == pytest.approx(scipy_distance(*near), rel=1e-6)
    batches = metrics.accumulate(a[rows] for rows in (slice(7), slice(7, 40), slice(40, 60)))
    np.testing.assert_allclose(batches.mean, a.astype(np.float64).mean(0), rtol=1e-14)
    np.testing.assert_allclose(batches.covariance, np.cov(near[0], rowvar=False), rtol=1e-9)


def in_reach(points: np.ndarray, of: np.ndarray) -> float:
    """The share of ``points`` no further from one of ``of`` than that one's third neighbour."""
    within = np.sqrt(((of[:, None] - of) ** 2).sum(-1))
    reach = np.sort(within, axis=1)[:, 3]  # the nearest is itself
    between = np.sqrt(((points[:, None] - of) ** 2).sum(-1))
    return float((between <= reach).any(axis=1).mean())


@pytest.mark.parametrize("offset", [0, 1000, 30_000])
def test_neighbours_far_from_zero_are_those_of_float64(offset: int) -> None:
    rng = np.random.default_rng(0)
    real = (rng.normal(size=(300, 8)) + offset).astype(np.float32)
    samples = (0.8 * rng.normal(size=(250, 8)) + 0.3 + offset).astype(np.float32)
    a, b = samples.astype(np.float64), real.astype(np.float64)
    exact = in_reach(a, of=b), in_reach(b, of=a)
    assert metrics.precision_recall(samples, real) == pytest.approx(exact, abs=1e-6)
    assert 0.3 < exact[1] < exact[0] < 1


def test_precision_and_recall_count_who_lies_within_reach() -> None:
    real = np.array([[0.0], [1], [2], [3], [4]])  # third neighbours: 3, 2, 2, 2, 3
    samples = np.array([[2.5], [2.6], [2.7], [100], [200]])
    # of the samples, in reach of a real one: the first three
    precision, recall = metrics.precision_recall(samples, real)
    assert precision == pytest.approx(0.6)
    assert recall == 1.0  # the reach of the first sample is 97.5


def test_the_score_of_certain_balanced_classes_is_their_number() -> None:
    logits = 1000 * np.eye(10)[np.arange(4000) % 10]
    assert metrics.inception_score(logits).value == pytest.approx(10, rel=0.02)
    assert metrics.inception_score(np.zeros((100, 10))).value == pytest.approx(1)


def test_no_score_is_more_than_the_images_of_a_split_so_that_ten_are_needed() -> None:
    certain = 100 * np.eye(100)  # each its own class
    assert metrics.inception_score(certain[:10]).value == pytest.approx(1)
    assert metrics.inception_score(certain).value == pytest.approx(10)
    config = tiny_config(sample={"count": 99}, evaluate={"metrics": ["inception_score"]})
    with pytest.raises(ConfigError, match="inception_score needs at least 100 samples"):
        check_evaluable(config)


@pytest.mark.parametrize(("m", "n"), [(60, 60), (60, 200), (200, 60)])
def test_a_kernel_distance_whose_subset_is_a_whole_set_has_no_spread(m: int, n: int) -> None:
    samples = Features(features(0, m).astype(np.float32), np.zeros((m, 0), np.float32))
    pooled = features(1, n).astype(np.float32)
    real = Reference({}, statistics(pooled), pooled, {})
    assert set(metrics.measure("kid", samples, real)[0]) == {"value"}


@pytest.mark.long
def test_a_kernel_distance_over_real_subsets_has_their_spread() -> None:
    a, b = features(0, 1100), features(1, 1200)
    assert metrics.kernel_distance(a, b).subset_std > 0


@pytest.mark.parametrize(
    ("extractor", "expected"),
    [
        ("inception", ["FID@500", "KID@500", "precision-inception@500", "recall-inception@500"]),
        ("digits", ["FD-digits@500", "KD-digits@500", "precision-digits@500", "recall-digits@500"]),
    ],
)
def test_nothing_but_inception_is_called_fid(extractor: str, expected: list[str]) -> None:
    names = ("fd", "kid", "precision_recall")
    assert [x for name in names for x in METRICS[name].named(extractor, 500)] == expected


def test_the_limit_takes_away_the_bias_of_few_samples_and_knows_its_error() -> None:
    d, n = 16, 400
    mean = np.full(d, 0.3)
    true = statistics(np.zeros((2, d)))._replace(covariance=np.eye(d))  # the reference: N(0, 1)
    exact = float(mean @ mean)
    limits, errors, plain = [], [], []
    for seed in range(60):
        sample = np.random.default_rng(seed).normal(size=(n, d)) + mean
        limit = metrics.extrapolate(sample.astype(np.float32), np.arange(n) % 10, true)
        assert limit is not None
        limits.append(limit.value)
        errors.append(limit.standard_error)
        plain.append(limit.points[0][1])
    bias = np.mean(plain) - exact
    assert bias > 0.1
    assert abs(np.mean(limits) - exact) < 0.1 * bias
    assert 0.8 < np.sqrt(np.mean(np.square(errors))) / np.std(limits) < 1.5
    inside = np.abs(np.array(limits) - exact) < 3.18 * np.array(errors)  # t, 3 degrees of freedom
    assert inside.mean() > 0.9


def test_the_limit_of_the_fewest_samples_states_how_wrong_it_may_be() -> None:
    d, n = 64, 256  # a quarter has as many samples as there are features
    true = statistics(np.zeros((2, d)))._replace(covariance=np.eye(d))
    for seed in range(8):
        sample = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
        far = metrics.extrapolate(sample + np.float32(0.3), np.arange(n) % 10, true)
        assert far is not None
        assert abs(far.value - 0.09 * d) <= 3 * far.standard_error
        near = metrics.extrapolate(sample, np.arange(n) % 10, true)
        assert near is not None, "a limit below zero stays"
        assert abs(near.value) <= 3 * near.standard_error


def test_no_limit_is_taken_from_singular_covariances() -> None:
    few = features(0, 63).astype(np.float32)
    assert metrics.extrapolate(few, np.arange(63), statistics(features(1, 100))) is None


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_subsets_are_disjoint_and_have_the_classes_of_the_whole(parts: int) -> None:
    classes = np.arange(1000) % 100  # ten of each: a quarter has two or three
    dealt = metrics.deal(classes, parts)
    together = np.concatenate(dealt)
    assert sorted(together.tolist()) == list(range(1000))
    for part in dealt:
        counts = np.bincount(classes[part], minlength=100)
        assert counts.max() - counts.min() <= 1
        halves = counts[:50].sum(), counts[50:].sum()  # neighbours among classes are alike
        assert abs(halves[0] - halves[1]) <= 2


def available(name: str) -> DataConfig:
    data = DataConfig.model_validate(name)
    try:
        datasets.check_available(data)
    except ValueError:
        pytest.skip(f"{name} is not installed")
    return data


def stated_accuracy(name: str) -> float:
    """The share of the test split that the shipped classifier names rightly, as its file says."""
    with safe_open(classifier.weights_file(name), "pt") as weights:
        return float(weights.metadata()["test_accuracy"])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_classifier_has_the_accuracy_it_states(name: str) -> None:
    test = datasets.load(available(name), "test")
    logits = classifier.load(name, CPU).features(datasets.to_uint8(test.pixels)).logits
    accuracy = (logits.argmax(1) == test.labels).mean()
    assert accuracy == pytest.approx(stated_accuracy(name), abs=1e-3)
    assert accuracy > {"digits": 0.98, "fashion-mnist": 0.91}[name]


def test_the_digits_weights_are_those_of_every_record_so_far() -> None:
    assert classifier.load("digits", CPU).weights == "063b3b7da6bfbb9f"


@pytest.mark.parametrize("name", SHIPPED)
def test_distances_order_real_blurred_and_noise_and_see_missing_classes(name: str) -> None:
    extractor, data = classifier.load(name, CPU), available(name)
    train, test = (datasets.load(data, split) for split in ("train", "test"))
    count = 500  # of Fashion-MNIST's 10,000; digits have fewer
    pixels, labels = test.pixels[:count], test.labels[:count]
    size = pixels.shape[-1]
    noise = np.random.default_rng(0).uniform(-1, 1, pixels.shape).astype(np.float32)
    mixed = (pixels + pixels[::-1]) / 2  # two images in one
    sets = {
        "held out": pixels,
        "two classes": pixels[labels < 2],
        "mixed": mixed,
        "blurred": gaussian_filter(pixels, (0, 0, size / 8, size / 8)),
        "noise": noise,
    }
    real = statistics(extractor.features(datasets.to_uint8(train.pixels[:4000])).pooled)
    found = {
        key: frechet_distance(
            statistics(extractor.features(datasets.to_uint8(images)).pooled), real
        )
        for key, images in sets.items()
    }
    assert found["held out"] < 0.1 * min(found[key] for key in found if key != "held out")
    assert max(found["mixed"], found["blurred"]) < found["noise"]
    if name == "digits":  # in the README, rounded
        assert found["held out"] == pytest.approx(1.25, rel=0.02)
        assert found["blurred"] == pytest.approx(35.7, rel=0.02)
        assert found["noise"] == pytest.approx(71.1, rel=0.02)
