import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.ndimage import gaussian_filter

from mpdit.config import DataConfig
from mpdit.data import datasets
from mpdit.evaluate import frechet_distance
from mpdit.extractors import classifier


def reference_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), by scipy's matrix square root."""
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(s1 @ s2).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1 + s2 - 2 * root))


def test_the_distance_equals_an_independent_computation() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, 16)), rng.normal(size=(400, 16)) @ rng.normal(size=(16, 16)) + 1
    assert frechet_distance(a, b) == pytest.approx(reference_distance(a, b), rel=1e-6)


def test_the_distance_of_features_to_themselves_is_zero() -> None:
    a = np.random.default_rng(0).normal(size=(300, 8))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ["digits", "fashion-mnist"])
def test_the_shipped_classifier_has_the_accuracy_it_states(name: str) -> None:
    data = DataConfig.model_validate(name)
    try:
        datasets.check_available(data)
    except ValueError:
        pytest.skip(f"{name} is not installed")
    extractor = classifier.load(name)
    test = datasets.load(data, "test")
    with torch.no_grad():
        guess = extractor.classifier(torch.from_numpy(test.pixels)).argmax(1).numpy()
    assert (guess == test.labels).mean() == pytest.approx(extractor.accuracy, abs=1e-3)
    assert extractor.accuracy > {"digits": 0.98, "fashion-mnist": 0.88}[name]


def test_distances_order_real_blurred_and_noise_and_see_missing_classes() -> None:
    extractor = classifier.load("digits")
    data = DataConfig(name="digits")
    train, test = (datasets.load(data, split) for split in ("train", "test"))
    reference = extractor.features(datasets.to_uint8(train.pixels))
    blurred = gaussian_filter(test.pixels, (0, 0, 1.0, 1.0))
    noise = np.random.default_rng(0).uniform(-1, 1, test.pixels.shape).astype(np.float32)
    sets = {
        "held out": test.pixels,
        "two classes": test.pixels[test.labels < 2],
        "blurred": blurred,
        "noise": noise,
    }
    distance = {
        name: frechet_distance(extractor.features(datasets.to_uint8(pixels)), reference)
        for name, pixels in sets.items()
    }
    stated = {"held out": 1.25, "blurred": 35.7, "noise": 71.1}  # in the README, rounded
    for name, value in stated.items():
        assert distance[name] == pytest.approx(value, rel=0.02), name
    assert distance["held out"] < 0.1 * distance["blurred"]
    assert distance["blurred"] < 0.8 * distance["noise"]
    assert distance["held out"] < 0.1 * distance["two classes"]
