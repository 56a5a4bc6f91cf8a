"""Tables, figures, statistics and a report from run directories. Never imports torch.

    study = analysis.load("results/quickstart")
    tables.ladder(study)  # from analysis import tables

``load`` also accepts several studies, and :func:`join` joins loaded studies. Import
``analysis.figures`` and ``analysis.report`` only to draw: they need matplotlib.
"""

from analysis.loading.join import join
from analysis.loading.load import load
from analysis.study import NothingToShow, Study

__all__ = ["NothingToShow", "Study", "join", "load"]
