"""Explanations of a study's numbers, for the report, the terminal and the paper."""

from __future__ import annotations

from contextlib import suppress

from analysis.judging import answers, code, comparison, distances, levels, tuning
from analysis.study import NothingToShow, Study
from mpdit.decisions import criteria
from mpdit.decisions.failures import BOUND
from mpdit.decisions.family import LEAST_SEEDS, Rules


def explanation(study: Study) -> str:
    """Explain the distance in one paragraph; '' before the first evaluation."""
    with suppress(NothingToShow):
        return _explanation(study)
    return ""


def _explanation(study: Study) -> str:
    judged = distances.judged(study)

    def get(key: str, unknown: str = "?") -> str:
        if key not in judged:
            return unknown
        return " or ".join(judged[key].dropna().map(levels.text).unique()) or unknown

    kind = criteria.kind(distances.label(study))
    of = f"the {kind} distance between" if kind else "measured on"
    images = f"{get('reference.count', 'the')} images"
    # older versions did not record the sampler
    sampler = f"by {get('sampling.sampler')} " if "sampling.sampler" in judged else ""
    unusual = {"precision": ("float32", ""), "to_uint8": ("round", "to 8 bits by ")}
    apart = ", ".join(
        words + found
        for key, (usual, words) in unusual.items()
        if (found := get(f"sampling.{key}", usual)) != usual
    )
    rules = distances.rules(study)
    sentences = [
        f"{distances.title(study)} is {of} {get('count')} samples and "
        f"{images} of {get('reference.data')} ({get('reference.split')}), "
        f"in the features of the {get('extractor')} network (weights {get('weights')}, reference "
        f"{get('reference.hash')}); {'smaller' if rules.lower_is_better else 'larger'} is better.",
        f"Sampled {sampler}in {get('sampling.steps')} steps{f' ({apart})' if apart else ''} "
        f"with guidance {get('sampling.guidance')} and EMA width {get('sampling.ema_std')}.",
        "A run's value is the mean over its sample sets."
        if len(comparison.companions(study, "repeat"))
        else "",
        _compared(rules, answers.is_crossed(study)),
        comparison.floor_statement(study),
        "N → ∞ is a line in 1/N through this distance over disjoint halves and quarters of the "
        "samples."
        if len(comparison.companions(study, "limit"))
        else "",
        "Sampling SD is the standard deviation between sample sets that one model drew from "
        "different noise."
        if len(comparison.companions(study, "repeat"))
        else "",
    ]
    return " ".join(filter(None, sentences))


def _compared(rules: Rules, is_crossed: bool) -> str:
    """Explain how verdicts are reached."""
    how = {"ratio": "by their ratio", "difference": "by their difference"}[rules.scale]
    margin = {
        "ratio": f"{100 * rules.margin:g} %",
        "difference": f"{rules.margin:g}",
    }[rules.scale]
    matters = f"changes below {margin} do not matter" if rules.margin else "every change matters"
    looks = f" and looks at {', '.join(map(str, rules.looks))} seeds" if rules.looks else ""
    kept = "A decided comparison keeps the numbers of its look. " if rules.looks else ""
    compared = (
        f"The levels of each factor are compared {how}; {matters}. An interaction is half the "
        "difference between a factor's effect at the other factor's level and at its first level. "
        "All runs share one variance. In 95 % of studies, the intervals of all effects contain "
        "the truth at once. Main effects and interactions each get half of the 5 % error rate; p "
        "is corrected in the same way."
        if is_crossed
        else f"Variants are compared {how}; {matters}. Variances are moderated across variants. "
        f"In 95 % of studies, the intervals of all comparisons{looks} contain the truth at once; "
        f"p is corrected in the same way. {kept}"
        f"Fewer than {LEAST_SEEDS} seeds give no verdict."
    )
    return (
        f"{compared} A run fails if its numbers "
        f"become NaN or infinite, or if it is worse than its variant's median by more than "
        f"{BOUND:g} robust standard deviations; a verdict that failed runs contradict is withheld."
    )


def warnings(study: Study) -> list[str]:
    """Return warnings: runs that are left out or have different code, how tuned values were chosen,
    and effects that cannot be estimated."""
    said = code.remarks(study)
    with suppress(NothingToShow):
        said += comparison.left_out(study)
        said += tuning.remarks(study)
        said += comparison.factorial(study).left_out
    return said
