"""Flags, conditioning parts, options, objectives, solvers, data sets, metrics, extractors.

Each kind is a table. An extension imports the decorators from here::

    from mpdit.catalogue import flag

Nothing here imports torch: a row names its code, which is loaded when it is used.
"""

from typing import Any

from mpdit.catalogue.flags import FLAGS, PAPERS_FLAGS, flag
from mpdit.catalogue.measures import METRICS, metric
from mpdit.catalogue.methods import EXTRACTORS, OBJECTIVES, SOLVERS, objective, solver
from mpdit.catalogue.options import (
    GATES,
    MLPS,
    MODULATIONS,
    NORMS,
    OPTIMIZERS,
    OPTIONS,
    POSITIONS,
    QK_NORMS,
    TIME_EMBEDDINGS,
)
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
    "gates": GATES,
    "modulations": MODULATIONS,
    "time_embeddings": TIME_EMBEDDINGS,
    "objectives": OBJECTIVES,
    "optimizers": OPTIMIZERS,
    "solvers": SOLVERS,
    "options": OPTIONS,
    "datasets": DATASETS,
    "metrics": METRICS,
    "extractors": EXTRACTORS,
}

__all__ = [
    "DATASETS",
    "EXTRACTORS",
    "FLAGS",
    "GATES",
    "METRICS",
    "MLPS",
    "MODES",
    "MODULATIONS",
    "NORMS",
    "OBJECTIVES",
    "OPTIMIZERS",
    "OPTIONS",
    "PAPERS_FLAGS",
    "PARTS",
    "POSITIONS",
    "QK_NORMS",
    "SOLVERS",
    "TABLES",
    "TIME_EMBEDDINGS",
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
