"""Check for the compilers that `torch.compile` needs on this machine."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from pathlib import Path

import torch

from mpdit.errors import ConfigError

LEAVE_OUT = "or leave compile out, which changes no run's identity"


def check_compiler(device: torch.device) -> None:
    """Check for the tools without which the first compiled step fails with a traceback.

    Raises:
        ConfigError: on a CPU without a C++ compiler; on a GPU without a C compiler or Python.h,
            with which Triton builds the launchers of its kernels.
    """
    if device.type == "cpu":
        names = [os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")]
        language, variable = "C++", "CXX"
    else:
        names = [os.environ["CC"]] if os.environ.get("CC") else ["gcc", "clang"]
        language, variable = "C", "CC"
    if not any(map(shutil.which, names)):
        where = "CPU" if device.type == "cpu" else "GPU"
        raise ConfigError(
            f"compile: true needs a {language} compiler on a {where}, and there is no "
            f"{' or '.join(names)}: install it, set {variable} to another, {LEAVE_OUT}"
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if device.type != "cpu" and not header.exists():
        raise ConfigError(
            f"compile: true needs Python's header on a GPU, and there is no {header}: install it "
            f"(Debian: apt-get install python3-dev), {LEAVE_OUT}"
        )
