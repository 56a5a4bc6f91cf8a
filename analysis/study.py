"""A study's results in memory: tidy frames, with one row per observation.

In every frame, ``run`` is the run's folder name, ``variant`` a categorical in grid order, ``seed``
an integer, and ``study`` the study's name. ``run`` and ``study`` are categoricals too, except in
``runs`` and ``missing``.

``runs``, one row for each run of the grid
    ``run``, ``id``, ``variant``, ``seed``, ``study``; ``named`` (the ladder step or variant of the
    grid, if the grid also has axes); ``state`` (planned, running, unfinished, failed, done);
    ``diverged`` (the run failed because its numbers became NaN or infinite);
    ``stage``; ``step`` of ``steps``; ``trained`` (training is over); ``parameters``, ``flops`` (of
    one image's forward pass); ``train_seconds`` (cumulative); ``axis.<key>`` and ``tune.<key>`` as
    the grid spells them; the parameter counts by part, ``parameters.<part>``; ``model``
    (``DiT-S/2``), ``flags`` (a tuple); ``folder`` (the run's path); ``design`` (a hash of the
    config without seed and tuned values); in joined studies ``part`` (studies that share a variant
    have the same number); and every field of the resolved config under its dotted key,
    ``model.conditioning``.
``metrics``, one row for each logged step
    ``step``, ``loss``, ``mse``, ``vlb`` (bits), ``grad_norm``, ``learning_rate``, ``images_per_s``,
    ``memory_mb``, ``seconds`` (cumulative training time), ``mfu`` (share of the devices' peak
    FLOP/s, NaN where that is unknown).
``magnitudes``, one row for each probed block
    ``step``, ``site``, ``block`` (from 1), ``magnitude``. No unit. Activations (residual,
    attention, mlp, modulated, conditioning): mean over positions of the RMS over channels. weight,
    gradient: the RMS. update: the RMS of a step's change over that of the weights.
``evaluations``, one row for each number
    ``metric`` (``FD-digits@1000``), ``value``, ``better`` (``lower`` or ``higher``: the better
    direction; results of older versions lack it), ``role`` (run, limit, repeat,
    floor, sweep: docs/evaluation.md explains each), ``extractor``, ``weights``, ``count``
    (samples), ``reference.*``, ``sampling.*``, ``seconds``, and the other columns of
    evaluation.jsonl.
``provenance``, one row for each start of a run
    ``time``, ``code`` (commit), ``diff_sha``, ``code_hash`` (of the files that its numbers can
    depend on), ``code_snapshot``, ``python``, ``host``, ``device``, ``threads``, ``job``,
    ``packages.<name>``, ``untracked.<file>`` (SHA-256), ``submodules.<path>`` (commit),
    ``imported_from``, ``checkout``.
``missing``, one row for each problem
    ``run``, ``study`` and ``what`` is missing or damaged, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from mpdit.disk import npz
from mpdit.disk.rundir import RunDir


class NothingToShow(ValueError):
    """The study has no data yet for what was asked."""


T = TypeVar("T")


def once(make: Callable[[Study], T]) -> Callable[[Study], T]:
    """Cache a function's result in the study. The result is shared: copy it before changing it."""

    @wraps(make)
    def wrapper(study: Study) -> T:
        made: dict[object, T] = study.made
        if make not in made:
            made[make] = make(study)
        return made[make]

    return wrapper


@dataclass(frozen=True)
class Study:
    """A study's results, as frames (:mod:`analysis.study`). Copy a frame before changing it."""

    name: str
    path: Path
    """The study's folder; of joined studies, the folder of the first."""
    runs: pd.DataFrame
    metrics: pd.DataFrame
    magnitudes: pd.DataFrame
    evaluations: pd.DataFrame
    provenance: pd.DataFrame
    missing: pd.DataFrame
    tune: tuple[str, ...] = ()
    """The tuned columns of ``runs``: each variant is compared at its own best point of them."""
    declared: Mapping[str, Any] = field(default_factory=dict)
    """The decision settings in study.json: ``metric``, ``margin``, ``scale``, ``looks``, ``tuning``
    (the seeds for tuning, which are not used in comparisons), ``fraction``."""
    grid: str = ""
    """The path of the grid that was submitted."""
    sets: tuple[str, ...] = ()
    """The ``--set`` arguments of the submission."""
    description: str = ""
    """What the grid says of itself."""

    @property
    def is_joined(self) -> bool:
        """Whether it is several studies, which no one grid submits."""
        return bool(self.runs["study"].nunique() > 1)

    @cached_property
    def made(self) -> dict[Any, Any]:
        """The results that `once` caches."""
        return {}

    @property
    def variants(self) -> list[str]:
        """In grid order."""
        return [str(name) for name in self.runs["variant"].cat.categories]

    @cached_property
    def designs(self) -> pd.DataFrame:
        """One row per variant: the row of ``runs`` of its first run with a readable config."""
        known = self.runs[self.runs["model"].notna()]
        return known.drop_duplicates("variant").set_index("variant").sort_index()

    @cached_property
    def _folders(self) -> dict[str, str]:
        return dict(zip(self.runs["run"], self.runs["folder"], strict=True))

    def answers(self) -> pd.DataFrame:
        """Return one row per comparison: its verdict, and what would settle it.

        ``variant``, ``baseline``, ``verdict`` (better, worse, equivalent, undecided), ``effect``
        with ``low`` and ``high`` (its simultaneous interval) on ``scale``, ``seeds``, ``failed``
        (runs), ``p`` (corrected), ``more_seeds`` and ``cost`` of settling an open one. No rows
        before the first evaluation.
        """
        # imported by name here, because analysis.judging imports this module
        plans = import_module("analysis.judging.plans")
        try:
            return pd.DataFrame(plans.as_json(self))
        except NothingToShow:
            return pd.DataFrame()

    def statements(self) -> list[str]:
        """Return the conclusions as sentences: first the obstacles, then one per comparison."""
        said: list[str] = import_module("analysis.judging.conclusions").statements(self)
        return said

    def folder(self, run: str) -> RunDir:
        """A run's folder."""
        return RunDir(Path(self._folders[run]))

    def samples(self, run: str, count: int, name: str = "samples") -> tuple[np.ndarray, np.ndarray]:
        """Return the first ``count`` images (uint8, count × H × W × C) and labels (count) of a run.

        ``name`` selects another sample set than the run's own, such as ``samples_ema0.1``.

        Raises:
            NothingToShow: when the file is missing, empty or damaged.
        """
        file = self.folder(run).samples / f"{name}.npz"
        try:
            held = npz.contents(file)
            if not held.usable or not held.shape[0]:
                raise NothingToShow(f"{file} holds no images")
            # read only these images: 10,000 images of 128² are half a gigabyte
            images = next(npz.images(file, count))
            return images, npz.labels(file)[:count]
        except FileNotFoundError:
            raise NothingToShow(f"{file} is missing") from None
        except PermissionError:
            raise NothingToShow(f"{file} cannot be read") from None
        except npz.DamagedError as error:
            raise NothingToShow(str(error)) from None
