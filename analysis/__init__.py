"""From run directories to tables, figures, statistics and a report. No torch is imported here.

    study = analysis.load("results/quickstart")
    tables.ladder(study)  # from analysis import tables

``load`` takes several studies too, and :func:`join` what is loaded. ``analysis.tables`` and
``analysis.judging`` draw nothing; ``analysis.figures`` and ``analysis.report`` draw (seaborn) and
are imported by whoever draws.
"""

from analysis.loading.join import join
from analysis.loading.load import load
from analysis.study import NothingToShow, Study

__all__ = ["NothingToShow", "Study", "join", "load"]
