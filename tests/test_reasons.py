"""The cause of an end, from words that Slurm 22.05 and PyTorch have said."""

from __future__ import annotations

import pytest

from mpdit.study.reasons import classify

LIMIT = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-25T01:31:08 DUE TO TIME LIMIT ***"
SCANCEL = "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-25T01:31:08 ***"
NODE = (
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-25T01:31:08 DUE TO NODE FAILURE, "
    "SEE SLURMCTLD LOG FOR DETAILS ***"
)


@pytest.mark.parametrize(
    ("word", "log", "kind"),
    [
        ("TIMEOUT", "", "timed out"),
        ("OUT_OF_MEMORY", "", "out of memory"),
        ("NODE_FAIL", "", "node failed"),
        ("CANCELLED", SCANCEL, "cancelled"),
        ("FAILED", f"slurmstepd: error: Exceeded job memory limit\n{SCANCEL}", "out of memory"),
        ("FAILED", "Traceback", "failed"),
        ("", LIMIT, "timed out"),
        ("", SCANCEL, "cancelled"),
        ("", NODE, "node failed"),
        ("", "error: Detected 1 oom_kill event in StepId=7.0.", "out of memory"),
        (
            "",
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",
            "out of memory",
        ),
        ("", "killed by SIGKILL (out of memory?)", "out of memory"),
        ("", "ValueError: no", ""),
        ("", "", ""),
    ],
)
def test_slurms_word_comes_first_and_then_the_log(word: str, log: str, kind: str) -> None:
    assert classify(word, log).kind == kind


def test_the_line_that_says_so_is_kept() -> None:
    said = f"{LIMIT}\nsrun: error: n1: task 0: Killed"
    assert classify("TIMEOUT", said).line == LIMIT
