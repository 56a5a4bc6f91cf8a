"""Differences in the code of compared runs, which may explain differences in their results."""

from __future__ import annotations

from analysis.judging import comparison
from analysis.study import Study
from mpdit.text import count, shortlist

UNKNOWN = "not recorded"
"""The code hash of runs of older versions."""
LISTED = 4


def remarks(study: Study) -> list[str]:
    """Describe differences in code within comparisons; empty if no run has recorded its code.

    Code that cannot change a number, such as the launcher's, does not count (`code_hash`).
    """
    starts = study.provenance.reindex(columns=["run", "variant", "code_hash"]).astype(object)
    if starts["code_hash"].isna().all():
        return []
    starts["code_hash"] = starts["code_hash"].str[:7].fillna(UNKNOWN)
    starts = starts.drop_duplicates()
    said = []
    compared = [starts["variant"].isin(group.variants) for group in comparison.groups(study)]
    if any(starts.loc[rows, "code_hash"].nunique() > 1 for rows in compared):
        codes = (
            f"{code!s} ({count(group['run'].nunique(), 'run')} of "
            f"{shortlist(list(map(str, group['variant'].unique())), LISTED)})"
            for code, group in starts.groupby("code_hash", sort=False)
        )
        said.append(
            f"compared runs have different code: {'; '.join(codes)}. A difference between them "
            "may come from the code"
        )
    resumed = starts[starts.duplicated("run")]["run"].unique()
    if len(resumed):
        listed = shortlist(list(map(str, resumed)), LISTED)
        said.append(f"{count(len(resumed), 'run')} resumed with other code ({listed})")
    return said
