"""What a reader must know of a study's numbers, in words: in the report, a terminal, the paper."""

from __future__ import annotations

from contextlib import suppress

from analysis.judging import code, comparison, distances, levels, tuning
from analysis.study import NothingToShow, Study


def explanation(study: Study) -> str:
    """What the distance is, in one paragraph; nothing before the first evaluation."""
    with suppress(NothingToShow):
        return _explanation(study)
    return ""


def _explanation(study: Study) -> str:
    judged = distances.judged(study)

    def get(key: str, unknown: str = "?") -> str:
        if key not in judged:
            return unknown
        return " or ".join(judged[key].dropna().map(levels.text).unique()) or unknown

    kind = distances.kind(distances.label(study))
    of = f"the {kind} distance between" if kind else "measured on"
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
    sentences = [
        f"{distances.title(study)} is {of} {get('count')} samples and "
        f"{images} of {get('reference.data')} ({get('reference.split')}), "
        f"in the features of the {get('extractor')} network (weights {get('weights')}, reference "
        f"{get('reference.hash')}); smaller is better.",
        f"Sampled {sampler}in {get('sampling.steps')} steps{f' ({apart})' if apart else ''} "
        f"with guidance {get('sampling.guidance')} and EMA width {get('sampling.ema_std')}.",
        f"The runs differ in {', '.join(differing)}." if differing else "",
        "Intervals are 95 % t intervals over seeds; differences are paired by seed.",
        "A change in % has no interval where the baseline itself cannot be told from zero.",
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


def warnings(study: Study) -> list[str]:
    """Runs that cannot be compared or have different code, how tuned values were chosen, and what
    cannot be estimated."""
    said = code.remarks(study)
    with suppress(NothingToShow):
        said += comparison.incomparable(study)
        said += tuning.remarks(study)
        said += comparison.factorial(study).left_out
    return said
