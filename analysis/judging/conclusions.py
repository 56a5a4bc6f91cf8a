"""The conclusions from a study, in sentences."""

from __future__ import annotations

import math
from collections import Counter

from analysis.judging import answers, comparison, distances
from analysis.judging.answers import Answer
from analysis.judging.numerals import change, probability
from analysis.study import NothingToShow, Study
from mpdit.text import shortlist

MANY = 12
"""The most comparisons that get a sentence each."""
LISTED = 6
"""The most variants with failed runs that get a sentence each."""


def statements(study: Study) -> list[str]:
    """Return the conclusions: first what prevents or limits them, then a sentence per comparison.

    ``E-all is better than A-none: FD-digits@1000 −26.2 % [−40.1 %, −8.4 %] (p = 0.004, 5 seeds).``
    Decided comparisons come first; the effects of a crossed grid stay in the order of its factors.
    If there are more than :data:`MANY` comparisons, the decided ones are shown and the others are
    counted. Interactions that are neither better nor worse come last.
    """
    try:
        found, name = answers.answers(study), distances.title(study)
    except NothingToShow as nothing:
        reason = str(nothing)
        return [f"{reason[0].upper()}{reason[1:]}."]
    said = [*hindrances(study)]
    shown = found
    if len(found) > MANY:
        decided = [answer for answer in found if not answer.is_open]
        shown = sorted(decided, key=_rank)[:MANY]
    elif not any(answer.is_interaction for answer in found):
        shown = sorted(found, key=_rank)
    said += [statement(answer, name) for answer in shown]
    if further := [answer for answer in found if answer not in shown]:
        counts = Counter(answer.verdict for answer in further)
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        of = f"Of {len(further):,} further comparisons, in the tables: {words}."
        said.append(of if shown else f"None of {len(further):,} comparisons is decided.")
    return said


def _rank(answer: Answer) -> tuple[bool, bool]:
    return answer.is_interaction and not answer.is_called, answer.is_open


def hindrances(study: Study) -> list[str]:
    """Return what prevents or limits conclusions, a sentence each.

    These are: different measurements, studies without a common variant, a later look that is
    not complete, failed runs, and a larger variance.
    """
    said = [
        f"The runs were measured with different {key} ({', '.join(values)}): runs with different "
        "values are not compared."
        for key, values in comparison.differing(study).items()
    ]
    if not answers.is_crossed(study) and (look := answers.look_words(study)):
        said.append(look)
    studies = study.runs["study"].nunique()
    if comparison.parts(study).nunique() > 1:
        said.append(
            f"The {studies} studies share no variant with the same config: variants of different "
            "studies are not compared."
        )
    failures = answers.failures(study)
    if len(failures) > LISTED:
        of = [f"{row.variant} ({row.failed} of {row.of})" for row in failures.itertuples()]
        said.append(f"{failures['failed'].sum():,} runs failed: {shortlist(of, LISTED)}.")
    for row in failures.to_dict("records") if len(failures) <= LISTED else []:
        far = ", ".join(map(str, row["outliers"]))
        beyond = (
            f" (seed {far}: more than 10 robust SD worse than the variant's median)" if far else ""
        )
        said.append(f"{row['variant']}: {row['failed']} of {row['of']} runs failed{beyond}.")
    if not answers.is_crossed(study):
        said += [
            f"The runs of {name} vary more than those of the other variants (F test, {_p(p)}): "
            f"its variance is not shared, and comparisons with {name} use plain paired t tests."
            for name, p in answers.family(study).larger.items()
        ]
    return said


def statement(answer: Answer, name: str) -> str:
    """Return one comparison as a sentence."""
    numbers = change(answer.effect, answer.low, answer.high, answer.scale)
    seeds = f"{answer.seeds} seed{'s' * (answer.seeds != 1)}"
    failed = f", {answer.failed} failed" if answer.failed else ""
    p = "" if math.isnan(answer.p) else f"{_p(answer.p)}, "
    behind = f"{name} {numbers} ({p}{seeds}{failed})"
    against = f"{answer.variant} against {answer.baseline}"
    match answer.verdict:
        case "undecided" if math.isnan(answer.effect):
            return f"{against}: {answer.reason}."
        case "undecided":
            reason = f"; {answer.reason}" if answer.reason else ""
            return f"{against}: undecided, {behind}{reason}."
        case "equivalent":
            return f"{answer.variant} is equivalent to {answer.baseline}: {behind}."
        case verdict:
            return f"{answer.variant} is {verdict} than {answer.baseline}: {behind}."


def _p(p: float) -> str:
    """``p = 0.012``, ``p < 0.001``."""
    return f"p {'= ' * (p >= 0.001)}{probability(p)}"
