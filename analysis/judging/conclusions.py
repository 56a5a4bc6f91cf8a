"""What may be concluded from a study, in sentences."""

from __future__ import annotations

import math
from collections import Counter

from analysis.judging import answers, comparison, distances
from analysis.judging.answers import Answer
from analysis.judging.numerals import change, probability
from analysis.study import NothingToShow, Study

MANY = 12
"""The largest number of sentences that people read."""


def statements(study: Study) -> list[str]:
    """What may be concluded, a sentence a comparison; first what forbids to conclude.

    ``E-all is better than A-none: FD-digits@1000 −26.2 % [−40.1 %, −8.4 %] (p = 0.004, 5 seeds).``
    Of more than :data:`MANY` comparisons the clear ones come first, and the others are counted.
    """
    try:
        found, name = answers.answers(study), distances.title(study)
    except NothingToShow as nothing:
        reason = str(nothing)
        return [f"{reason[0].upper()}{reason[1:]}."]
    said = [*hindrances(study)]
    shown = found
    if len(found) > MANY:
        shown = sorted(found, key=lambda answer: answer.is_open)[:MANY]
    said += [statement(answer, name) for answer in shown]
    if further := [answer for answer in found if answer not in shown]:
        counts = Counter(answer.verdict for answer in further)
        words = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        said.append(f"Of {len(further)} further comparisons, in the tables: {words}.")
    return said


def hindrances(study: Study) -> list[str]:
    """What forbids or limits conclusions, a sentence each: unlike measurements, failed runs,
    studies without a common variant, unequal variances."""
    said = [
        f"The runs were measured with different {key} ({', '.join(values)}): runs that differ in "
        "it are not compared."
        for key, values in comparison.differing(study).items()
    ]
    studies = study.runs["study"].nunique()
    if comparison.parts(study).nunique() > 1:
        said.append(
            f"The {studies} studies share no variant with the same config: variants of different "
            "studies are not compared."
        )
    for row in answers.failures(study).to_dict("records"):
        far = ", ".join(map(str, row["outliers"]))
        beyond = (
            f" (seed {far}: more than 10 robust SD worse than the variant's median)" if far else ""
        )
        said.append(f"{row['variant']}: {row['failed']} of {row['of']} runs failed{beyond}.")
    if answers.family(study).is_paired and not answers.is_crossed(study):
        said.append(
            "The variants' variances differ (Bartlett's test, "
            f"p = {answers.family(study).p_equal:.2g}): they are not shared, and the intervals are "
            "of plain paired t tests."
        )
    return said


def statement(answer: Answer, name: str) -> str:
    """One comparison in words."""
    numbers = change(answer.effect, answer.low, answer.high, answer.scale)
    seeds = f"{answer.seeds} seed{'s' * (answer.seeds != 1)}"
    failed = f", {answer.failed} failed" if answer.failed else ""
    p = "" if math.isnan(answer.p) else f"p {'= ' * (answer.p >= 0.001)}{probability(answer.p)}, "
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
