"""The code of a job is the one that submitted it, in every process on every node."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from mpdit.study.studydir import StudyDir
from tests.helpers import stand_in
from tests.helpers.launching import launch_of, make_checkout, set_version
from tests.helpers.slurm.cluster import Cluster
from tests.helpers.slurm.studies import BASE, look, wait_for_end

HELD = "slurm: {{memory: 200M, time: 5, nodes: {nodes}, extra: {{hold: true}}}}\n"
NOTE = """\
import json, os, sys, time
from pathlib import Path
import mpdit
from mpdit.disk.files import append_row, write_atomic
job = dict(line.split("=", 1) for line in
           Path(f"/proc/{os.getppid()}/environ").read_text().split("\\0") if "=" in line)
run, rank = Path(sys.argv[1]), os.environ["SLURM_PROCID"]
code = [mpdit.__version__, str(Path(mpdit.__file__).parents[1]), job["PYTHONPATH"].split(":")[0]]
write_atomic(run / f"rank{rank}.json", json.dumps(code))
while len(list(run.glob("rank*.json"))) < 2:
    time.sleep(0.1)
if rank == "0":
    append_row(run / "evaluation.jsonl", {"value": 1.0})
"""


def submit_held(checkout: Path, nodes: int, *command: str) -> StudyDir:
    """Submit a run from inside a checkout, as a job that waits to be released."""
    grid = checkout.parent / "grid.yaml"
    grid.write_text(BASE + HELD.format(nodes=nodes))
    words = ["submit", str(grid), "--results", str(checkout.parent / "results")]
    subprocess.run(
        [sys.executable, "-c", launch_of(checkout, command), *words], cwd=checkout, check=True
    )
    return StudyDir(checkout.parent / "results" / "s")


def release(cluster: Cluster, study: StudyDir) -> None:
    (claim,) = study.claims()
    cluster.run("scontrol", "release", str(claim.arrays[0].job))


def test_all_ranks_import_what_was_submitted_though_the_checkout_has_changed(
    cluster: Cluster, tmp_path: Path
) -> None:
    checkout = make_checkout(tmp_path / "checkout")
    set_version(checkout, "1")
    study = submit_held(checkout, 2, sys.executable, "-c", NOTE)
    (checkout / "mpdit" / "__init__.py").write_text("raise RuntimeError('the edited code')")
    release(cluster, study)
    (status,) = wait_for_end(study)
    assert (status.state, status.error) == ("done", None)
    (snapshot,) = map(str, (study.path / ".code").iterdir())
    ranks = [json.loads((study.path / status.name / f"rank{i}.json").read_text()) for i in (0, 1)]
    assert ranks == [["1", snapshot, snapshot]] * 2


def test_a_job_whose_snapshot_is_gone_says_so(cluster: Cluster, tmp_path: Path) -> None:
    study = submit_held(make_checkout(tmp_path / "checkout"), 1, *stand_in.COMMAND)
    (snapshot,) = (study.path / ".code").iterdir()
    shutil.rmtree(snapshot)
    release(cluster, study)
    wait_for_end(study)
    (status,) = look(study)
    assert status.state == "failed"
    assert status.error is not None
    assert f"{snapshot} is missing" in status.error
