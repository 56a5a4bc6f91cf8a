"""A Slurm of shell scripts, for what is asked of sbatch, and what it is made to answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_ANSWERS = {
    "srun": "",
    "squeue": "",
    "sacct": "",
    "sinfo": "echo 4",
    "scontrol": """\
case "$*" in
*partition*) echo PartitionName=main Default=YES DefaultTime=30 MaxTime=1-00:00:00
             echo PartitionName=gpu MaxTime=UNLIMITED;;
*) echo MaxArraySize = 1001; echo SchedulerParameters = x;;
esac""",
    "sbatch": """\
case "$*" in
*--test-only*) printf '%s\\n' "$@" >> FOLDER/tested;;
*) for script; do :; done
   set -- $(sed -n 's/^#SBATCH //p' "$script");;
esac
case "$*" in
UNLESS) ;;
REFUSED) echo "sbatch: error: $(cat FOLDER/refusal)" >&2; exit 1;;
esac
if [ "$script" ]; then
  job=$(($(ls FOLDER | grep -c '^[0-9]*.sh$') + 1))
  cp "$script" FOLDER/$job.sh
  env > FOLDER/$job.env
  echo Submitted batch job $job
fi""",
}


class PretendedSlurm:
    """Its commands are first on the PATH. sbatch keeps the scripts it takes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        self.refuse("''", "")
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        for variable in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
            monkeypatch.delenv(variable)
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))

    def refuse(self, pattern: str, reason: str, unless: str = "''") -> None:
        """Let sbatch refuse options that match a pattern of the shell, with a reason."""
        for name, answer in _ANSWERS.items():
            text = answer.replace("UNLESS", unless).replace("REFUSED", pattern)
            text = text.replace("FOLDER", str(self.folder))
            (self.folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (self.folder / name).chmod(0o755)
        (self.folder / "refusal").write_text(reason)

    @property
    def scripts(self) -> list[str]:
        """The scripts that were submitted, in order."""
        files = sorted(self.folder.glob("[0-9]*.sh"), key=lambda file: int(file.stem))
        return [file.read_text() for file in files]

    def environment(self, job: int) -> str:
        """The environment of the sbatch that submitted a script (from 1)."""
        return (self.folder / f"{job}.env").read_text()

    @property
    def tested(self) -> list[str]:
        """The options that were tested."""
        return (self.folder / "tested").read_text().splitlines()
