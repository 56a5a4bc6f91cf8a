"""Figures of samples: every variant draws from the same noise."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis.figures import panels, style
from analysis.figures.distance_plots import variations
from analysis.figures.figure import figure
from analysis.judging import comparison
from analysis.study import NothingToShow, Study

COLUMNS = 10


@figure(
    title="Samples from the same noise",
    caption="Every column starts from the same noise and class in all variants.",
    place=20,
)
def samples(study: Study, ema_std: float | None = None) -> Figure:
    """Draw samples of one seed: one row per variant; a column has the same noise and class.

    ``ema_std`` is an EMA width with samples (:func:`ema_widths`); None is each run's own width.
    """
    runs, seed = _sampled(study, ema_std)
    images, labels, columns = {}, np.empty(0), np.empty(0, dtype=int)
    for variant, run in runs.items():
        images[variant], labels = study.samples(run, 500, _set_name(study, run, ema_std))
        if not columns.size:
            columns = _one_a_class(labels)
        columns = columns[columns < len(labels)]
    strips = {variant: _strip(images[variant][columns]) for variant in runs}
    rows, width = next(iter(strips.values())).shape[:2]
    row = (style.COLUMN - 0.1) * rows / width
    layout = ConstrainedLayoutEngine(h_pad=0.01, w_pad=0.03, hspace=0, wspace=0)
    lines = sum(1 + style.wrap(variant, panels.LINE).count("\n") for variant in runs)
    height = 0.25 + len(runs) * (row + 0.05) + lines * 0.12
    figure = Figure(figsize=(style.COLUMN, height), layout=layout)
    grid = figure.subplots(len(runs), 1, squeeze=False).ravel()
    for axes, (variant, strip) in zip(grid, strips.items(), strict=True):
        axes.imshow(strip, interpolation="nearest", aspect="equal")
        axes.set_axis_off()
        axes.set_title(style.wrap(variant, panels.LINE), loc="left", pad=3)
    cell = width / len(columns)
    for i, label in enumerate(labels[columns]):
        grid[-1].annotate(
            f"{label}", ((i + 0.5) * cell - 0.5, rows), va="top", ha="center", fontsize=6,
            xytext=(0, -1), textcoords="offset points", annotation_clip=False,
        )  # fmt: skip
    figure.supxlabel(f"class (seed {seed})", fontsize=6.5)
    return figure


def ema_widths(study: Study) -> list[float]:
    """Return the EMA widths for which the study's runs have samples, including their own."""
    swept = variations(study, "sampling.ema_std")["sampling.ema_std"]
    return sorted({*study.runs["sample.ema_std"].dropna(), *swept})


def _set_name(study: Study, run: str, ema_std: float | None) -> str:
    """Return the set's name, which contains the settings that differ from the run's config.

    ``mpdit.sampling.drawing`` makes the same names.
    """
    if ema_std is None or ema_std == study.runs.set_index("run").at[run, "sample.ema_std"]:
        return "samples"
    return f"samples_ema{ema_std:g}"


def _sampled(study: Study, ema_std: float | None) -> tuple[dict[str, str], int]:
    """Return the runs by variant, for the seed with samples of the most variants; and the seed."""
    found: dict[int, dict[str, str]] = {}
    for run, variant, seed in comparison.chosen(study)[["run", "variant", "seed"]].itertuples(
        index=False
    ):
        try:
            study.samples(run, 1, _set_name(study, run, ema_std))
        except NothingToShow:
            continue
        found.setdefault(int(seed), {})[str(variant)] = run
    if not found:
        raise NothingToShow("no run has samples yet")
    seed = max(sorted(found), key=lambda s: len(found[s]))
    return {variant: found[seed][variant] for variant in panels.shown(study, found[seed])}, seed


def _one_a_class(labels: np.ndarray) -> np.ndarray:
    """Return the index of each class' first sample, sorted by class, plus the next samples."""
    _, first = np.unique(labels, return_index=True)
    rest = np.setdiff1d(np.arange(len(labels)), first)
    chosen = np.concatenate([first, rest])[:COLUMNS]
    return chosen[np.argsort(labels[chosen], kind="stable")]


def _strip(images: np.ndarray) -> np.ndarray:
    """Join N × H × W × C images to one RGBA row, with enlarged pixels and transparent gaps."""
    scale = max(1, 64 // images.shape[2])
    rgb = images[..., :3] if images.shape[-1] >= 3 else np.repeat(images[..., :1], 3, axis=-1)
    rgb = rgb.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width, _ = rgb.shape
    cells = np.zeros((n, height, width + max(2, width // 16), 4), dtype=np.uint8)
    cells[:, :, :width, :3] = rgb
    cells[:, :, :width, 3] = 255
    return np.concatenate(list(cells), axis=1)
