"""The figures: each a function ``Study`` → matplotlib Figure, one column wide.

They raise `analysis.study.NothingToShow` while the study has nothing of the kind. Where there are
more variants than a reader can tell apart, the baseline and the best are drawn.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from analysis.figures.distance_plots import distance, distance_parameters, distance_training, sweep
from analysis.figures.effect_plots import interactions, main_effects
from analysis.figures.magnitude_plots import (
    activations,
    magnitude_depth,
    magnitude_training,
    magnitudes,
)
from analysis.figures.strips import ema_widths, samples
from analysis.figures.training_curves import loss, speed
from analysis.figures.tuning_curves import tuning_curve
from analysis.study import Study

FIGURES: dict[str, Callable[[Study], Figure]] = {
    "distance": distance,
    "samples": samples,
    "distance_parameters": distance_parameters,
    "magnitude_depth": magnitude_depth,
    "magnitude_training": magnitude_training,
    "magnitudes": magnitudes,
    "loss": loss,
    "distance_training": distance_training,
    "sweep": sweep,
    "tuning_curve": tuning_curve,
    "main_effects": main_effects,
    "interactions": interactions,
    "speed": speed,
}

__all__ = [
    "FIGURES",
    "activations",
    "distance",
    "distance_parameters",
    "distance_training",
    "ema_widths",
    "interactions",
    "loss",
    "magnitude_depth",
    "magnitude_training",
    "magnitudes",
    "main_effects",
    "samples",
    "speed",
    "sweep",
    "tuning_curve",
]
