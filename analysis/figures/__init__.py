"""The figures: each a function ``Study`` → matplotlib Figure, one column wide.

A figure raises `analysis.study.NothingToShow` if the study has no data for it yet. If there are
more variants than a reader can tell apart, only the baseline and the best variants are drawn.

To add a figure, decorate a function of a module in this folder with
`analysis.figures.figure.figure`. It is then in FIGURES, in the report, and an attribute of this
package.
"""

from analysis.figures.figure import FIGURES as FIGURES
from analysis.figures.magnitude_plots import activations as activations
from analysis.figures.strips import ema_widths as ema_widths

globals().update(FIGURES.discover(__name__, __path__))
