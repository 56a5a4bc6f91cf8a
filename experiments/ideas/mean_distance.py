"""A metric: how far the mean of the samples' features is from that of real images."""

import numpy as np

from mpdit.catalogue import metric


@metric(
    "mean_distance",
    label="MD",
    better="lower",
    does="distance between the features' means, the first term of the Fréchet distance",
    source="this file",
    needs_features=False,
)
def mean_distance(samples, real):
    """samples.pooled is (images, features), real.statistics.mean (features)."""
    return float(np.linalg.norm(samples.pooled.mean(0) - real.statistics.mean))
