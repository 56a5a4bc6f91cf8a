"""Flags, conditioning parts, norms, data sets, metrics, solvers, objectives, extractors.

Each is a table.

An extension imports the decorators from here::

    from mpdit.catalogue import flag

Nothing here imports torch: a row's code is named, and loaded when it is used.
"""

from typing import Any

from mpdit.catalogue.flags import FLAGS, PAPERS_FLAGS, flag
from mpdit.catalogue.measures import METRICS, metric
from mpdit.catalogue.methods import EXTRACTORS, OBJECTIVES, SOLVERS, objective, solver
from mpdit.catalogue.options import MLPS, NORMS, POSITIONS, QK_NORMS
from mpdit.catalogue.parts import MODES, PARTS, part
from mpdit.catalogue.registry import Registry, load_code
from mpdit.catalogue.sources import DATASETS, Dataset, dataset

TABLES: dict[str, Registry[Any]] = {
    "flags": FLAGS,
    "parts": PARTS,
    "norms": NORMS,
    "qk_norms": QK_NORMS,
    "mlps": MLPS,
    "positions": POSITIONS,
    "datasets": DATASETS,
    "metrics": METRICS,
    "solvers": SOLVERS,
    "objectives": OBJECTIVES,
    "extractors": EXTRACTORS,
}

__all__ = [
    "DATASETS",
    "EXTRACTORS",
    "FLAGS",
    "METRICS",
    "MLPS",
    "MODES",
    "NORMS",
    "OBJECTIVES",
    "PAPERS_FLAGS",
    "PARTS",
    "POSITIONS",
    "QK_NORMS",
    "SOLVERS",
    "TABLES",
    "Dataset",
    "Registry",
    "dataset",
    "flag",
    "load_code",
    "metric",
    "objective",
    "part",
    "solver",
]
