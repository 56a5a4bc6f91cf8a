"""The figures: each a function ``Study`` → matplotlib Figure, one column wide.

They raise `analysis.study.NothingToShow` while the study has nothing of the kind. Where there are
more variants than a reader can tell apart, the baseline and the best are drawn.

To add one, decorate a function of a module in this folder with `analysis.figures.figure.figure`:
it is then in FIGURES, in the report, and an attribute of this package.
"""

from analysis.figures.figure import FIGURES as FIGURES
from analysis.figures.magnitude_plots import activations as activations
from analysis.figures.strips import ema_widths as ema_widths

globals().update(FIGURES.discover(__name__, __path__))
