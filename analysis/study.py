"""A study's results in memory: tidy frames, one row an observation.

In every frame ``run`` is the run's folder name, ``variant`` a categorical in grid order, ``seed``
an integer, ``study`` the study's name; ``run`` and ``study`` are categoricals too, save in ``runs``
and ``missing``.

``runs``, one row a run of the grid
    ``run``, ``id``, ``variant``, ``seed``, ``study``; ``named`` (the ladder step or variant of the
    grid, where it has axes beside them); ``state`` (planned, running, unfinished, failed, done);
    ``diverged`` (it failed because its numbers became NaN or infinite);
    ``stage``; ``step`` of ``steps``; ``trained`` (training is over); ``parameters``, ``flops`` (of
    one image's forward pass); ``train_seconds`` (cumulative); ``axis.<key>`` and ``tune.<key>`` as
    the grid spells them; the parameter counts by part, ``parameters.<part>``; ``model``
    (``DiT-S/2``), ``flags`` (a tuple); ``folder`` (where it lies); ``design`` (a hash of the config
    without seed and tuned values); of joined studies ``part`` (a number that studies with a variant
    in common share); and every field of the resolved config under its dotted key,
    ``model.conditioning``.
``metrics``, one row a logged step
    ``step``, ``loss``, ``mse``, ``vlb`` (bits), ``grad_norm``, ``learning_rate``, ``images_per_s``,
    ``memory_mb``, ``seconds`` (cumulative training time), ``mfu`` (share of the devices' peak
    FLOP/s, NaN where that is unknown).
``magnitudes``, one row a probed block
    ``step``, ``site``, ``block`` (from 1), ``magnitude``. No unit. Activations (residual,
    attention, mlp, modulated, conditioning): mean over positions of the RMS over channels. weight,
    gradient: the RMS. update: the RMS of a step's change over that of the weights.
``evaluations``, one row a number
    ``metric`` (``FD-digits@1000``), ``value``, ``better`` (``lower`` or ``higher``: which of two
    values is the better one; results of older versions lack it), ``role`` (run, limit, repeat,
    floor, sweep: docs/evaluation.md explains each), ``extractor``, ``weights``, ``count``
    (samples), ``reference.*``, ``sampling.*`` and the rest as evaluation.jsonl has them,
    ``seconds``.
``provenance``, one row a start of a run
    ``time``, ``code`` (commit), ``diff_sha``, ``code_hash`` (of the files that its numbers can
    depend on), ``code_snapshot``, ``python``, ``host``, ``device``, ``threads``, ``job``,
    ``packages.<name>``, ``untracked.<file>`` (SHA-256), ``submodules.<path>`` (commit),
    ``imported_from``, ``checkout``.
``missing``, one row a problem
    ``run``, ``study`` and ``what`` is missing or damaged, in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, wraps
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
    """Make something of a study only once. The result is shared: copy it before changing it."""

    @wraps(make)
    def wrapper(study: Study) -> T:
        made: dict[object, T] = study.made
        if make not in made:
            made[make] = make(study)
        return made[make]

    return wrapper


@dataclass(frozen=True)
class Study:
    """A study's results: the frames that this module describes. Copy a frame before changing it."""

    name: str
    path: Path
    """Its folder; that of the first of several joined studies."""
    runs: pd.DataFrame
    metrics: pd.DataFrame
    magnitudes: pd.DataFrame
    evaluations: pd.DataFrame
    provenance: pd.DataFrame
    missing: pd.DataFrame
    tune: tuple[str, ...] = ()
    """The tuned columns of ``runs``: each variant is compared at its own best point of them."""
    declared: Mapping[str, Any] = field(default_factory=dict)
    """What study.json says of decisions: ``metric``, ``margin``, ``scale``, ``looks``, ``tuning``
    (the seeds on which points were chosen, which enter no comparison), ``fraction``."""
    grid: str = ""
    """The grid's file, as it was submitted."""

    @cached_property
    def made(self) -> dict[Any, Any]:
        """What `once` keeps."""
        return {}

    @property
    def variants(self) -> list[str]:
        """In grid order."""
        return [str(name) for name in self.runs["variant"].cat.categories]

    @cached_property
    def designs(self) -> pd.DataFrame:
        """One row a variant with at least one readable config: that run's row of ``runs``."""
        known = self.runs[self.runs["model"].notna()]
        return known.drop_duplicates("variant").set_index("variant").sort_index()

    @cached_property
    def _folders(self) -> dict[str, str]:
        return dict(zip(self.runs["run"], self.runs["folder"], strict=True))

    def folder(self, run: str) -> RunDir:
        """A run's folder."""
        return RunDir(Path(self._folders[run]))

    def samples(self, run: str, count: int, name: str = "samples") -> tuple[np.ndarray, np.ndarray]:
        """The first ``count`` images (uint8, count × H × W × C) and labels (count) of a run.

        ``name`` names another sample set than the run's own, such as ``samples_ema0.1``.

        Raises:
            NothingToShow: when the file is missing, empty or damaged.
        """
        file = self.folder(run).samples / f"{name}.npz"
        try:
            held = npz.contents(file)
            if not held.usable or not held.shape[0]:
                raise NothingToShow(f"{file} holds no images")
            # no more than these: 10,000 images of 128² are half a gigabyte
            images = next(npz.images(file, count))
            return images, npz.labels(file)[:count]
        except FileNotFoundError:
            raise NothingToShow(f"{file} is missing") from None
        except PermissionError:
            raise NothingToShow(f"{file} cannot be read") from None
        except npz.DamagedError as error:
            raise NothingToShow(str(error)) from None
