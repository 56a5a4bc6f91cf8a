"""What a reader must know of a study's numbers, in words: in the report, a terminal, the paper."""

from __future__ import annotations

from analysis.judging import comparison, levels, tuning
from analysis.study import NothingToShow, Study


def explanation(study: Study) -> str:
    """What the distance is, in one sentence; nothing before the first evaluation."""
    try:
        judged = comparison.judged(study)
    except NothingToShow:
        return ""
    kind = "kernel" if comparison.label(study).startswith("K") else "Fréchet"

    def get(key: str, unknown: str = "?") -> str:
        if key not in judged:
            return unknown
        return " or ".join(judged[key].dropna().map(levels.text).unique()) or unknown

    images = f"{get('reference.count', 'the')} images"
    # what is not recorded is of an older version
    sampler = f"by {get('sampling.sampler')} " if "sampling.sampler" in judged else ""
    unusual = {"precision": ("float32", ""), "to_uint8": ("round", "to 8 bits by ")}
    apart = ", ".join(
        words + found
        for key, (usual, words) in unusual.items()
        if (found := get(f"sampling.{key}", usual)) != usual
    )
    differing = comparison.differing(study)
    differ = f"The runs differ in {', '.join(differing)}. " if differing else ""
    return (
        f"{comparison.title(study)} is the {kind} distance between {get('count')} samples and "
        f"{images} of {get('reference.data')} ({get('reference.split')}), "
        f"in the features of the {get('extractor')} network (weights {get('weights')}, reference "
        f"{get('reference.hash')}); smaller is better. "
        f"Sampled {sampler}in {get('sampling.steps')} steps{f' ({apart})' if apart else ''} "
        f"with guidance {get('sampling.guidance')} and EMA width {get('sampling.ema_std')}. "
        f"{differ}"
        "Intervals are 95 % t intervals over seeds; differences are paired by seed. "
        "A change in % has no interval where the baseline itself cannot be told from zero. "
        f"{_further(study)}"
    ).rstrip()


def _further(study: Study) -> str:
    """What the records beside the distance are, where there are any."""
    said = [comparison.floor_statement(study)]
    if not comparison.companions(study, "limit").empty:
        said.append(
            "N → ∞ is a line in 1/N through this distance over disjoint halves and quarters of "
            "the samples."
        )
    if not comparison.companions(study, "repeat").empty:
        said.append(
            "Sampling SD is the standard deviation between sample sets that one model drew from "
            "different noise."
        )
    return " ".join(filter(None, said))


def warnings(study: Study) -> list[str]:
    """What may not stand beside each other, how tuned values were chosen, what cannot be told."""
    try:
        found = comparison.incomparable(study)
    except NothingToShow:
        return []
    return [*found, *tuning.remarks(study), *_not_told(study)]


def _not_told(study: Study) -> tuple[str, ...]:
    """Which effects of a factorial grid cannot be estimated."""
    try:
        return comparison.factorial(study).left_out
    except NothingToShow:
        return ()
