"""One program as several processes on this machine, as torchrun starts them."""

import os
import socket
import subprocess
import sys

from mpdit.errors import EXIT_DONE

RUN = [sys.executable, "-m", "mpdit.run"]


def start(command: list[str], processes: int) -> list[subprocess.Popen[str]]:
    """As torchrun starts them: each knows its rank and where rank 0 listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    ranks = [{**place, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    return [popen(command, environment) for environment in ranks]


def popen(command: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env={**os.environ, **environment, "MPDIT_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(processes: list[subprocess.Popen[str]], status: int = EXIT_DONE) -> str:
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), outputs
    return "\n".join(outputs)
