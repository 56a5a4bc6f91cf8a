"""What a figure is called in print, and what a reader must know to read it."""

from __future__ import annotations

TITLES = {
    "distance": "Distance per variant",
    "samples": "Samples from the same noise",
    "distance_parameters": "Distance against parameters",
    "magnitude_depth": "Activation magnitude across depth",
    "magnitude_training": "Activation magnitude over training",
    "magnitudes": "Activations, weights, gradients, updates",
    "loss": "Training loss",
    "distance_training": "Distance over training",
    "sweep": "Distance over EMA width and guidance",
    "tuning_curve": "Tuning curve",
    "main_effects": "Main effects",
    "interactions": "Interactions of two factors",
    "speed": "Training speed",
}
CAPTIONS = {
    "distance": "Dots: one run each. Bar: mean over seeds. Line: its 95 % t interval; "
    "an arrow where the interval goes on beyond the axis.",
    "samples": "Every column starts from the same noise and class in all variants.",
    "distance_parameters": "Variants with the same flags that differ in conditioning. Pale dots: "
    "one run each. Mark: mean over seeds, with its 95 % t interval; an arrow where it goes on "
    "beyond the axis.",
    "magnitude_depth": "At the first probe, a tenth into training, and the last; mean over seeds. "
    "RMS over channels, averaged over positions; 1 is what magnitude preservation aims at. What "
    "is zero before the first step has no line there.",
    "magnitude_training": "The residual stream behind each block, from the first block (pale) "
    "to the last (full colour), mean over seeds; the same axes in all panels.",
    "magnitudes": "RMS per block, the mean over blocks and seeds: the residual stream behind each "
    "block; its weight matrices; their gradients before clipping; the change of one step over "
    "the weights.",
    "loss": "Running mean over a twentieth of training, then mean over seeds.",
    "distance_training": "EMA snapshots of earlier steps, drawn and measured like the run's end. "
    "Marks: mean over seeds. Pale dots: one run each.",
    "sweep": "One setting changed, the other as the run's own. Marks: mean over seeds. Pale dots: "
    "one run each.",
    "tuning_curve": "Marks: mean over seeds, with its 95 % t interval; of several tuned values the "
    "others are at the variant's best. Filled: the variant's best.",
    "main_effects": "Each level against its factor's first, over all settings of the other "
    "factors; least squares with the seeds as blocks, 95 % intervals. Filled: differs from zero "
    "after Holm's correction for all main effects, as p does.",
    "interactions": "Half of what the one factor does at the other's level, less half of what it "
    "does at the other's first. Blue: better together than apart. A star: differs from zero after "
    "Holm's correction for all interactions.",
    "speed": "Dots: one run each, the median over its logged rows. Bar and line: mean over seeds "
    "and its 95 % t interval. Right: the mean over that of the first variant.",
}
