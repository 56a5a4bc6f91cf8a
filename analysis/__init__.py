"""From run directories to tables, figures, statistics and a report. No torch is imported here.

    study = analysis.load("results/quickstart")
    analysis.tables.ladder(study)

``tables`` and ``comparison`` need pandas only; ``figures`` and ``report`` draw (seaborn) and are
imported by whoever draws.
"""

from analysis.load import NothingToShow, Study, load

__all__ = ["NothingToShow", "Study", "load"]
