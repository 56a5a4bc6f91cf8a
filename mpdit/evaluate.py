"""The Fréchet distance between a run's samples and the training data, through torch-fidelity.

It is labelled with its extractor and the number of samples (``FD-digits@500``): a distance in
another feature space, or from another number of samples, is another quantity. FID is only what
Inception measures.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch_fidelity.metric_fid import (
    KEY_METRIC_FID,
    fid_features_to_statistics,
    fid_statistics_to_metric,
)

from mpdit.config import ConfigError, RunConfig
from mpdit.data import datasets
from mpdit.extractors import classifier
from mpdit.sample import samples_file
from mpdit.session import Session
from mpdit.study.rundir import append_row


def frechet_distance(
    a: Float[np.ndarray, "m features"], b: Float[np.ndarray, "n features"]
) -> float:
    """|μ₁ − μ₂|² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½) of two sets of features, in float64."""
    statistics = [
        fid_features_to_statistics(torch.from_numpy(x.astype(np.float64))) for x in (a, b)
    ]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def evaluate_run(config: RunConfig, session: Session) -> dict[str, Any]:
    """Measure samples.npz against the train split and append the record to evaluation.jsonl.

    Returns:
        the record.

    Raises:
        ConfigError: when the extractor is not to be had.
    """
    began = time.perf_counter()
    session.stage("evaluate", 0, 1)
    name = config.evaluate.extractor
    if name not in ("digits", "fashion-mnist"):
        raise ConfigError(f"extractor {name} is not in this version", "evaluate.extractor")
    extractor = classifier.load(name)
    with np.load(samples_file(session.run)) as arrays:
        samples = arrays["arr_0"]
    reference = datasets.load(config.data, "train")
    distance = frechet_distance(
        extractor.features(samples), extractor.features(datasets.to_uint8(reference.pixels))
    )
    record = {
        "metric": f"FD-{name}@{len(samples)}",
        "value": distance,
        "extractor": name,
        "weights": extractor.weights,
        "count": len(samples),
        "reference": {
            "data": config.data.name,
            "split": "train",
            "count": len(reference.labels),
            "hash": reference.hash,
        },
        "sampling": {
            "sampler": "ddpm",
            "steps": config.sample.steps,
            "guidance": config.sample.guidance,
            "ema_std": config.sample.ema_std,
            "seed": config.seed,
        },
        "seconds": time.perf_counter() - began,
    }
    append_row(session.run.path / "evaluation.jsonl", record)
    return record
