"""A real Slurm on this machine, as root, for as long as it is wanted.

Four logical nodes, ``n1`` … ``n4``, of four CPUs, 16 GB and two pretended GPUs each; partition
``main``, and ``low``, which it preempts. Everything lives in one folder, on ports of its own.

    python tests/helpers/slurm/cluster.py [--bare] COMMAND …

runs a command on such a cluster (without accounting: ``--bare``), and stops it again.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from string import Template

NODES = ("n1", "n2", "n3", "n4")
DAEMONS = ("munged", "slurmctld", "slurmd", "setpriv")
DATABASE = ("slurmdbd", "mariadbd", "mariadb-install-db")
TEMPLATES = Path(__file__).parent
USERS = "users-slurm.conf"
"""As slurm.conf, save that a command soon gives up a controller that is away."""
MARK = "TEST_CLUSTER_NODE"
"""In the environment of a node's daemons, and not of its jobs."""


def missing(accounting: bool) -> str | None:
    """Why there can be no cluster here, None when there can."""
    wanted = DAEMONS + (DATABASE if accounting else ())
    absent = [program for program in wanted if which(program) is None]
    if absent:
        return f"Slurm is not installed here: there is no {', '.join(absent)}"
    if os.geteuid() != 0:
        return "a test cluster of Slurm is root's to start"
    return None


def which(program: str) -> str | None:
    """Daemons are in sbin, which is not on every PATH."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def wait_until(condition: Callable[[], bool], timeout_s: float = 60, what: str = "") -> None:
    """Look every 0.1 s.

    Raises:
        TimeoutError: when it has not come true in time.
    """
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not in {timeout_s} s: {what or condition}")
        time.sleep(0.1)


class Cluster:
    """One cluster in ``folder``, which is made; with or without accounting."""

    def __init__(self, folder: Path, accounting: bool = True) -> None:
        self.folder = folder
        self.accounting = accounting
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.users_conf = str(folder / USERS)
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    # Start and stop ------------------------------------------------------------------------------

    def start(self) -> None:
        """Return when all nodes are idle and a job has run on each."""
        self._write_files()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()
        self.run("srun", "-N4", "--time=1", "true")

    def stop(self) -> None:
        """End the jobs, then the daemons that were started here, in the order of their needs."""
        if self.is_up("slurmctld"):
            with suppress(subprocess.CalledProcessError, TimeoutError):
                self.cancel_all()
        for name in reversed(list(self.daemons)):
            self._end(name)
        for pid in self._processes():
            _kill(pid)  # orphans, and whoever still asks
        shutil.rmtree(self.folder)

    def reset(self) -> None:
        """No jobs, and all daemons up: what the next test finds."""
        if not self.is_up("slurmctld"):
            self.start_controller()
        self.cancel_all()
        for node in NODES:
            self.kill_orphans(node)
            if not self.is_up(node):
                self.start_node(node)
        self.wait_for_nodes()

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True)
        self.folder.chmod(0o755)  # munge wants its socket within everyone's reach
        for name in ("state", "gpus", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir()
        for gpu in ("nvidia0", "nvidia1"):
            (self.folder / "gpus" / gpu).symlink_to("/dev/null")
        ports = _free_ports(3 + len(NODES))
        storage, gather = ("slurmdbd", "linux") if self.accounting else ("none", "none")
        self.mariadb_port, self.slurmdbd_port = ports[:2]
        values = {
            "dir": self.folder,
            "mariadb_port": self.mariadb_port,
            "slurmdbd_port": self.slurmdbd_port,
            "slurmctld_port": ports[2],
            "slurmd_ports": f"[{','.join(map(str, ports[3:]))}]",
            "accounting": f"accounting_storage/{storage}",
            "gather": f"jobacct_gather/{gather}",
            # a job's key must be its user's: the default one, or another that it names
            "enforced": "AccountingStorageEnforce=wckeys\nTrackWCKey=yes" * self.accounting,
            "first_job": int(time.time()) % 60_000_000 + 1,
        }
        written = {"slurm.conf": 20, USERS: 3, "slurmdbd.conf": 0, "gres.conf": 0}
        for name, timeout_s in written.items():
            template = Template((TEMPLATES / name.removeprefix("users-")).read_text())
            text = template.substitute(values, message_timeout=timeout_s)
            (self.folder / name).write_text(text)
        (self.folder / "slurmdbd.conf").chmod(0o600)

    def _start_munge(self) -> None:
        at = {
            name: f"--{name}-file={self.folder}/munged.{name}"
            for name in ("key", "pid", "log", "seed")
        }
        self.run("mungekey", "-c", "-k", f"{self.folder}/munged.key")
        socket_file = self.folder / "munge.sock"
        # --force: the folder may be below one that is its owner's alone
        self._daemon("munged", "-F", "--force", f"--socket={socket_file}", *at.values())
        wait_until(socket_file.exists)

    def _start_accounting(self) -> None:
        data, database = f"--datadir={self.folder}/mysql", self.folder / "mysql.sock"
        plain = "--innodb-use-native-aio=0"  # the kernel gives all programs together few requests
        install = (
            *("mariadb-install-db", "--no-defaults", "--user=root", data, plain),
            *("--auth-root-authentication-method=normal", "--skip-test-db"),
        )
        if not self.succeeds(*install):  # it has failed once beside the other cluster's
            shutil.rmtree(self.folder / "mysql", ignore_errors=True)
            self.run(*install)
        self._daemon(
            *("mariadbd", "--no-defaults", "--user=root", data, plain, f"--socket={database}"),
            *("--bind-address=127.0.0.1", f"--port={self.mariadb_port}", "--skip-log-bin"),
            *("--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"),
            "--innodb-flush-log-at-trx-commit=0",
        )
        query = ("mariadb", "--no-defaults", "-uroot", "-S", str(database), "-e")
        wait_until(lambda: self.succeeds(*query, "select 1"))
        user = "slurm@'127.0.0.1'"
        self.run(
            *query,
            "create database slurm_acct_db;"
            f"create user {user} identified by 'slurm'; grant all on slurm_acct_db.* to {user}",
        )
        self.start_database()
        self.run("sacctmgr", "-i", "add", "cluster", "test")
        self.run("sacctmgr", "-i", "add", "user", "root", "account=root", "wckeys=team,other")
        self.run("sacctmgr", "-i", "modify", "user", "root", "set", "defaultwckey=team")

    def start_database(self) -> None:
        """The daemon between the controller and the accounting's tables."""
        self._daemon("slurmdbd", "-D")
        wait_until(lambda: _listens(self.slurmdbd_port), what="slurmdbd listens")

    def start_controller(self) -> None:
        """With the state on disk."""
        self._daemon("slurmctld", "-D")
        wait_until(lambda: self.succeeds("scontrol", "ping"), what="slurmctld answers")

    @contextmanager
    def configured(self, **values: str) -> Iterator[None]:
        """With these lines in place of slurm.conf's, for a while."""
        file = self.folder / "slurm.conf"
        before = file.read_text()
        kept = [line for line in before.splitlines() if line.partition("=")[0] not in values]
        file.write_text(
            "\n".join(kept + [f"{key}={value}" for key, value in values.items()]) + "\n"
        )
        try:
            self._restart_controller()
            yield
        finally:
            self.cancel_all()
            file.write_text(before)
            self._restart_controller()

    def _restart_controller(self) -> None:
        self.stop_controller()
        self.start_controller()
        self.wait_for_nodes()

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-D", "-N", node, name=node, **{MARK: node})

    def wait_for_nodes(self) -> None:
        """Until none is down, draining or busy."""
        wait_until(lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"})

    # What befalls a cluster ----------------------------------------------------------------------

    def kill_controller(self) -> None:
        """With its jobs on disk: it writes what has changed every five seconds."""
        time.sleep(6)
        self._end("slurmctld", signal.SIGKILL)

    def stop_controller(self) -> None:
        """As its administrator would."""
        self._end("slurmctld")

    def kill_database(self) -> None:
        self._end("slurmdbd", signal.SIGKILL)

    def kill_node(self, node: str, *, orphans: bool = False) -> None:
        """Kill a node's daemons; its jobs' processes too, unless they are to live on as orphans.

        The controller, which would notice in half a minute, is told, and requeues the node's jobs.
        """
        self._end(node, signal.SIGKILL)
        for pid in self._processes(f"{MARK}={node}"):  # the slurmstepd of each step
            _kill(pid)
        if not orphans:
            self.kill_orphans(node)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=killed")

    def kill_orphans(self, node: str) -> None:
        """What jobs of this cluster have left running on a node whose daemons are dead."""
        for pid in self.job_processes(node):
            _kill(pid)

    def job_processes(self, node: str) -> list[int]:
        """The processes of all jobs on a node, orphans as well."""
        return self._processes(f"SLURMD_NODENAME={node}")

    def requeue(self, job: str) -> None:
        """Requeue a job, as a user or an administrator would: it gets no signal to save by."""
        self.run("scontrol", "requeue", job)

    def cancel_all(self) -> None:
        """Cancel every job, and wait until none is left."""
        self.run("scancel", "--user=root")
        try:
            self.wait_for_queue(30)
        except TimeoutError:  # a job whose end a dead controller missed completes with its node
            for state in ("DOWN", "RESUME"):
                for node in NODES:
                    words = (f"NodeName={node}", f"State={state}", "Reason=completing")
                    self.succeeds("scontrol", "update", *words)
            self.wait_for_queue()

    # Looking -------------------------------------------------------------------------------------

    def run(self, *words: str) -> str:
        """What a command says, on this cluster.

        Raises:
            CalledProcessError: when it fails.
        """
        program = which(words[0]) or words[0]
        done = subprocess.run(
            (program, *words[1:]), env=self.environment, capture_output=True, text=True
        )
        if done.returncode:
            failed = subprocess.CalledProcessError(done.returncode, words, done.stdout, done.stderr)
            failed.add_note(done.stdout + done.stderr)
            raise failed
        return done.stdout.strip()

    def succeeds(self, *words: str) -> bool:
        try:
            self.run(*words)
        except subprocess.CalledProcessError:
            return False
        return True

    def submit(self, script: str, *options: str) -> str:
        """Submit a line of shell; the job's id."""
        return self.run(
            *("sbatch", "--parsable", f"--output={self.folder}/job-%A_%a.out"),
            *options,
            f"--wrap={script}",
        )

    def state(self, job: str) -> str:
        """Slurm's word for where a job is, '' when it does not know it (any more)."""
        try:
            return self.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T")
        except subprocess.CalledProcessError:
            return ""

    def wait_for_state(self, job: str, *states: str, timeout_s: float = 60) -> None:
        wait_until(lambda: self.state(job) in states, timeout_s, f"{job} is {' or '.join(states)}")

    def wait_for_queue(self, timeout_s: float = 60) -> None:
        """Until it is empty."""
        wait_until(lambda: not self.run("squeue", "-h", "-o", "%i"), timeout_s, "no job is left")

    # Processes -----------------------------------------------------------------------------------

    def is_up(self, name: str) -> bool:
        """Whether a daemon lives: by its program's name, or its node's."""
        return name in self.daemons and self.daemons[name].poll() is None

    def _daemon(self, program: str, *options: str, name: str = "", **environment: str) -> None:
        name = name or program
        with (self.folder / f"{name}.out").open("ab") as output:
            self.daemons[name] = subprocess.Popen(
                # should this process be killed, they go with it
                ("setpriv", "--pdeathsig", "KILL", which(program) or program, *options),
                env={**self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def _end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        daemon = self.daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(15)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _processes(self, *variables: str) -> list[int]:
        """This cluster's that began with ``NAME=value`` in their environment, save this one.

        Beside it there may be another one, whose nodes have the same names.
        """
        wanted = [f"SLURM_CONF={self.environment['SLURM_CONF']}", *variables]
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                began = (folder / "environ").read_bytes().split(b"\0")
                if all(variable.encode() in began for variable in wanted):
                    found.append(int(folder.name))
        return [pid for pid in found if pid != os.getpid()]


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    """Below those that the kernel gives to outgoing connections."""
    free: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            free.append(port)
        if len(free) == count:
            break
    return free


@contextmanager
def running(folder: Path, accounting: bool = True) -> Iterator[Cluster]:
    """A cluster that is stopped in any case."""
    cluster = Cluster(folder, accounting)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a command on a Slurm made for it")
    parser.add_argument("--bare", action="store_true", help="without accounting")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    if reason := missing(not given.bare):
        print(f"error: {reason}", file=sys.stderr)
        return 2
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        running(Path(folder) / "cluster", not given.bare) as cluster,
    ):
        return subprocess.run(given.command, env=cluster.environment).returncode


if __name__ == "__main__":
    sys.exit(main())
