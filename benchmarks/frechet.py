"""Time the Fréchet distance against the two usual ways: ``python benchmarks/frechet.py``.

Two sets of features with covariances of full rank are compared by this project, by torch-fidelity
(eigenvalues of Σ₁Σ₂) and by scipy's matrix square root, in turns; the fastest turn of each counts.
Prints the seconds, how many times as long the other two take, and the differences of their numbers,
relative to this project's.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_statistics_to_metric

from mpdit.evaluation.metrics import Statistics, frechet_distance, statistics

Distance = Callable[[Statistics, Statistics], float]


def by_torch_fidelity(a: Statistics, b: Statistics) -> float:
    pair = [{"mu": s.mean, "sigma": s.covariance} for s in (a, b)]
    return float(fid_statistics_to_metric(*pair, verbose=False)[KEY_METRIC_FID])


def by_square_root(a: Statistics, b: Statistics) -> float:
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    off = a.mean - b.mean
    return float(off @ off + np.trace(a.covariance + b.covariance - 2 * root))


WAYS: dict[str, Distance] = {
    "mpdit": frechet_distance,
    "torch-fidelity": by_torch_fidelity,
    "scipy sqrtm": by_square_root,
}


def features(seed: int, count: int) -> Statistics:
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 2, count)
    return statistics(rng.normal(size=(3 * count, count)) * scales + rng.normal(size=count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--features", type=int, default=2048, help="Inception has 2048")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    given = parser.parse_args()
    a, b = (features(seed, given.features) for seed in (0, 1))
    seconds = dict.fromkeys(WAYS, np.inf)
    values = dict.fromkeys(WAYS, 0.0)
    for _ in range(given.turns):
        for name, distance in WAYS.items():
            began = time.perf_counter()
            values[name] = distance(a, b)
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    own, value = seconds["mpdit"], values["mpdit"]
    ways = {
        name: {
            "seconds": round(seconds[name], 3),
            "times_as_long": round(seconds[name] / own, 2),
            "relative_difference": abs(values[name] / value - 1),
        }
        for name in WAYS
    }
    if given.json:
        print(json.dumps({"features": given.features, "turns": given.turns, "ways": ways}))
        return
    print(f"{given.features:,} features, fastest of {given.turns} turns")
    for name, way in ways.items():
        print(
            f"{name:>14}: {way['seconds']:7.2f} s, {way['times_as_long']:5.2f} times as long, "
            f"differs by {way['relative_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
