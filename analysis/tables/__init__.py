"""The tables: each a function ``Study`` → tidy DataFrame of numbers, and what prints it.

    numbers = tables.ladder(study)
    text = tables.TABLES["ladder"].text(numbers)
    tables.save(numbers, text, Path("ladder"))  # ladder.md, ladder.tex, and ladder.csv in full

They raise :class:`~analysis.study.NothingToShow` while the study has nothing of the kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from analysis.judging import tuning
from analysis.study import Study
from analysis.tables import compare, factors, origins, points, seeds, sizes, timing
from analysis.tables.cells import DASH, alignment, count, duration, latex, markdown, save
from analysis.tables.compare import ladder, modulation, others, pretty
from analysis.tables.factors import contributions, interactions, main_effects
from analysis.tables.origins import differences, inventory
from analysis.tables.seeds import evidence
from analysis.tables.sizes import ladder_by_size
from analysis.tables.timing import overhead


@dataclass(frozen=True)
class Table:
    """One kind of table.

    Attributes:
        title: in print.
        caption: what a reader must know to read it.
        make: a study → its numbers.
        text: the numbers → what people read.
    """

    title: str
    caption: str
    make: Callable[[Study], pd.DataFrame]
    text: Callable[[pd.DataFrame], pd.DataFrame]


_DIFFERENCES = (
    "Differences are paired by seed, with 95 % t intervals, widened where a variant was tuned; "
    "those in % with Fieller's."
)
_CORRECTED = "p of the paired t test, corrected for all comparisons of the study (Holm)."

TABLES: dict[str, Table] = {
    "ladder_by_size": Table(
        "Magnitude preservation at each model size",
        "Mean over seeds ± half of its 95 % t interval; Δ to the first step of the same size, with "
        "Fieller's interval. The paper's Δ is not said to be of one size.",
        ladder_by_size,
        sizes.pretty,
    ),
    "ladder": Table(
        "Magnitude preservation: the ladder",
        f"Mean over seeds ± half of its 95 % t interval. {_DIFFERENCES} {_CORRECTED}",
        ladder,
        compare.pretty,
    ),
    "modulation": Table(
        "Conditioning: the modulations",
        f"Mean over seeds ± half of its 95 % t interval. {_DIFFERENCES} {_CORRECTED}",
        modulation,
        compare.pretty,
    ),
    "others": Table(
        "Other variants",
        f"Mean over seeds ± half of its 95 % t interval. {_DIFFERENCES} {_CORRECTED}",
        others,
        compare.pretty,
    ),
    "contributions": Table(
        "What each step of the ladder adds",
        f"{_DIFFERENCES} p of the paired t test, and corrected for all steps (Holm).",
        contributions,
        factors.pretty_contributions,
    ),
    "evidence": Table(
        "What the seeds allow to say",
        f"{_DIFFERENCES} {_CORRECTED} P(better): the chance that a run is better than one of the "
        "other variant, with Newcombe's 95 % interval. Detectable: the true difference that these "
        "seeds find four times in five; last, how many would so find a difference as large as the "
        "one seen.",
        evidence,
        seeds.pretty,
    ),
    "main_effects": Table(
        "Main effects",
        "Each level against its factor's first, over all settings of the other factors; least "
        "squares with the seeds as blocks, 95 % intervals; p also corrected for all main effects "
        "(Holm).",
        main_effects,
        factors.pretty_effects,
    ),
    "interactions": Table(
        "Interactions of two factors",
        "Half of what a factor does at the other's level less half of what it does at its first; "
        "as the main effects otherwise.",
        interactions,
        factors.pretty_effects,
    ),
    "tuning": Table(
        "Tuning curves",
        "Mean over seeds ± half of its 95 % t interval. Best: by all seeds. Chosen: for a seed, by "
        "the others.",
        tuning.curve,
        points.pretty,
    ),
    "overhead": Table(
        "Training time",
        "Median step of each run, mean over seeds ± half of its 95 % t interval; Δ paired by seed, "
        "between runs on the same device. Beside others: runs that shared their host with another "
        "run of the study, and slowed each other down.",
        overhead,
        timing.pretty,
    ),
    "inventory": Table(
        "Where the runs come from",
        "Of a run's last start; + marks uncommitted changes, kept beside the run. Packages and "
        "threads are in the CSV.",
        inventory,
        origins.pretty,
    ),
}

__all__ = [
    "DASH",
    "TABLES",
    "Table",
    "alignment",
    "contributions",
    "count",
    "differences",
    "duration",
    "evidence",
    "interactions",
    "inventory",
    "ladder",
    "ladder_by_size",
    "latex",
    "main_effects",
    "markdown",
    "modulation",
    "others",
    "overhead",
    "pretty",
    "save",
]
