"""A data set: stripes of four directions, 8×8, with random phase and contrast."""

import numpy as np

from mpdit.catalogue import dataset

ANGLES = np.pi * np.arange(4) / 4


@dataset(
    "stripes",
    channels=1,
    size=8,
    classes=4,
    extractor="digits",
    does="stripes of four directions, 8×8 grey",
    source="this file",
)
def stripes(_data, split):
    """→ pixels (images, 1, 8, 8) float32 in [-1, 1], labels (images) int64."""
    random = np.random.default_rng({"train": 0, "test": 1}[split])
    labels = np.arange({"train": 800, "test": 200}[split]) % 4
    row, column = np.mgrid[:8, :8]
    angle = ANGLES[labels, None, None]
    wave = 1.5 * (row * np.sin(angle) + column * np.cos(angle))
    phase, contrast = random.uniform([0, 0.5], [2 * np.pi, 1], (len(labels), 2)).T[..., None, None]
    return (contrast * np.sin(wave + phase))[:, None].astype(np.float32), labels.astype(np.int64)
