"""The cause of an end, from words that Slurm 22.05 and PyTorch have said."""

from __future__ import annotations

import pytest

from mpdit.disk.rundir import RunState
from mpdit.study.cluster.endings import classify
from mpdit.study.cluster.scheduler import Placement
from mpdit.study.status import RunStatus, explain_end

LIMIT = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-25T01:31:08 DUE TO TIME LIMIT ***"
SCANCEL = "slurmstepd: error: *** STEP 7.0 ON n1 CANCELLED AT 2026-11-25T01:31:08 ***"
NODE = (
    "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-25T01:31:08 DUE TO NODE FAILURE, "
    "SEE SLURMCTLD LOG FOR DETAILS ***"
)

CRASHED = f"""\
srun: error: n1: task 0: Exited with exit code 1
srun: Terminating StepId=7.0
{SCANCEL}
srun: error: n2: task 1: Terminated"""
"""What a step says of which one process has died, with --kill-on-bad-exit."""
REQUEUED = "submitit INFO - Job has not timed out. Ran 3 minutes out of requested 60 minutes."


@pytest.mark.parametrize(
    ("word", "log", "kind"),
    [
        ("TIMEOUT", "", "timed out"),
        ("OUT_OF_MEMORY", "", "out of memory"),
        ("NODE_FAIL", "", "node failed"),
        ("CANCELLED", SCANCEL, "cancelled"),
        ("FAILED", f"slurmstepd: error: Exceeded job memory limit\n{SCANCEL}", "out of memory"),
        ("FAILED", "Traceback", "failed"),
        ("FAILED", CRASHED, "failed"),
        ("FAILED", SCANCEL, "failed"),
        ("", CRASHED, "failed"),
        ("", f"{REQUEUED}\n{SCANCEL}", "cancelled"),
        ("", REQUEUED, ""),
        ("", "timed out: 3 allocations of 1 min in a row", "timed out"),
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


def test_a_run_that_was_stopped_has_not_failed_whatever_its_jobs_log_says() -> None:
    stopped = RunState(stopped="SIGTERM")
    assert explain_end(stopped, Placement("gone", reason="preempted")) == ("planned", None)
    assert explain_end(RunState(), Placement("gone", reason="cancelled")) == ("planned", None)


@pytest.mark.parametrize(
    ("word", "log", "error", "cause"),
    [
        ("NODE_FAIL", "submitit INFO (01:00:00) - Loading pickle", "node failed", "node failed"),
        ("PREEMPTED", "", "preempted", "preempted"),
        ("", LIMIT, f"timed out: {LIMIT}", "timed out"),
        ("", CRASHED, "failed: srun: Terminating StepId=7.0", "failed"),
    ],
)
def test_the_cause_is_kept_with_the_line_that_says_so_and_with_no_other(
    word: str, log: str, error: str, cause: str
) -> None:
    kind, line = classify(word, log)
    state, said = explain_end(RunState(), Placement("gone", reason=kind, said=line))
    assert (state, said) == ("failed", error)
    assert kept(error).cause == cause


def kept(error: str) -> RunStatus:
    run = {"name": "a", "id": "a", "variant": "a", "seed": 0, "stage": "train"}
    return RunStatus(**run, state="failed", step=1, steps=2, error=error)  # type: ignore[arg-type]


def test_a_signal_that_only_suggests_a_cause_is_told_with_its_doubt() -> None:
    told = [kept(error).cause_told for error in ("killed by SIGKILL (out of memory?)", "timed out")]
    assert told == ["out of memory?", "timed out"]
