"""A SLURM cluster on this machine: two nodes, a partition ``main`` and one, ``urgent``, that takes its nodes.

Without systemd and control groups; as root, from Debian's packages slurm-wlm and munge, and for accounting slurmdbd,
mariadb-server and slurm-wlm-mysql-plugin. Everything listens on 127.0.0.1 or on sockets below a folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
ACCOUNTING = ("slurmdbd", "sacctmgr", "mariadb-install-db", "mariadbd")
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
{accounting}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
ReturnToService=2
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1
KillWait=5
MaxArraySize=1001
InactiveLimit=0
MinJobAge={forgets_s}
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=urgent Nodes=n1,n2 MaxTime=60 State=UP PriorityTier=10 PreemptMode=OFF
"""
DATABASE = """
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={daemon}
SlurmUser=root
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
"""


def missing(*programs: str) -> str:
    """Which of some programs are not installed, as the reason to skip a test; "" where none is missing."""
    absent = [name for name in programs if shutil.which(name) is None]
    if not absent and os.geteuid() != 0:
        return "SLURM's daemons are started as root"
    return f"not installed: {', '.join(absent)}" if absent else ""


class SlurmCluster:
    """The cluster, until it is stopped.

    Args:
        folder: For its files; a short path, since sockets lie in it.
        accounting: Whether ``sacct`` knows jobs.
        forgets_s: Seconds after which the controller forgets a job that has ended.
    """

    def __init__(self, folder: Path, *, accounting: bool, forgets_s: int = 300) -> None:
        self.folder, self.accounting = folder, accounting
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        names = ("controller", "first", "second", "daemon", "database")
        ports: dict[str, object] = dict(zip(names, free_ports(len(names)), strict=True))
        self._facts = {**ports, "folder": folder, "host": socket.gethostname().split(".")[0], "forgets_s": forgets_s}
        for name in ("munge", "state", "n1", "n2", "log", "run", "db"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        (folder / "munge").chmod(0o700)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        folder = self.folder
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        self.run(
            *("munged", f"--key-file={key}", f"--socket={folder}/run/munge.sock"),
            *(f"--pid-file={folder}/run/munged.pid", f"--log-file={folder}/munge/munged.log"),
            *(f"--seed-file={folder}/munge/seed", "--num-threads=2", "--force"),
        )
        lines = "AccountingStorageType=accounting_storage/none"
        if self.accounting:
            self._start_database()
            lines = (
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePort={self._facts['daemon']}\nAccountingStoragePass={folder}/run/munge.sock"
            )
        (folder / "slurm.conf").write_text(CONFIGURATION.format(**self._facts, accounting=lines))
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
        if self.accounting:
            self.run("slurmdbd")
            wait_until(lambda: self._answers("sacctmgr", "-n", "-i", "list", "cluster"))
            self.run("sacctmgr", "-i", "-Q", "add", "cluster", "one")
        self.run("slurmctld", "-f", str(folder / "slurm.conf"), "-c")
        for node in ("n1", "n2"):
            self.start_node(node)
        wait_until(lambda: self.run("sinfo", "-h", "-o", "%T", "-p", "main").split() == ["idle"])

    def _start_database(self) -> None:
        folder, place = self.folder, self.folder / "db"
        shutil.chown(place, "mysql", "mysql")
        self.run(
            *("mariadb-install-db", "--no-defaults", "--user=mysql", f"--datadir={place}", "--skip-test-db"),
            "--auth-root-authentication-method=normal",
        )
        command = [
            *("mariadbd", "--no-defaults", "--user=mysql", f"--datadir={place}", f"--socket={place}/s.sock"),
            *("--bind-address=127.0.0.1", f"--port={self._facts['database']}", f"--pid-file={place}/pid"),
            *("--innodb-buffer-pool-size=64M", "--innodb-lock-wait-timeout=900"),
        ]
        with (folder / "log" / "mariadb.log").open("wb") as log:
            subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        client = ("mariadb", "--no-defaults", "-uroot", "-S", f"{place}/s.sock", "-e")
        wait_until(lambda: self._answers(*client, "select 1"))
        self.run(
            *client,
            "create database if not exists slurm_acct_db; create user if not exists slurm@127.0.0.1 "
            "identified by 'slurm'; grant all on slurm_acct_db.* to slurm@127.0.0.1;",
        )
        (folder / "slurmdbd.conf").write_text(DATABASE.format(**self._facts))
        (folder / "slurmdbd.conf").chmod(0o600)

    def start_node(self, node: str) -> None:
        """Start the daemon of a node."""
        self.run("slurmd", "-f", str(self.folder / "slurm.conf"), "-N", node)

    def resume_node(self, node: str) -> None:
        """Start the daemon of a node that was declared down; the node takes jobs again when it has registered."""
        self.start_node(node)
        wait_until(lambda: self.run("sinfo", "-h", "-o", "%T", "-n", node, "-p", "main").strip() == "idle", 120)

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node and declare the node down; what it had started runs on."""
        with suppress(OSError, ValueError):
            os.kill(int((self.folder / "run" / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
        self.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def run(self, *command: str, timeout_s: float = 60) -> str:
        """What a program says on this cluster."""
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, env=self.environment, check=False
        )
        assert answer.returncode == 0, f"{' '.join(command)}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    def _answers(self, *command: str) -> bool:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.run(*command, timeout_s=10)
            return True
        return False

    def stop(self) -> None:
        """End its jobs and its daemons."""
        with suppress(AssertionError, subprocess.TimeoutExpired, OSError):
            self.run("scancel", "--user=root", "--signal=KILL", "--full", timeout_s=20)
        for name in ("slurmd.n1", "slurmd.n2", "slurmctld", "slurmdbd", "munged"):
            _end(self.folder / "run" / f"{name}.pid")
        _end(self.folder / "db" / "pid")


def _end(file: Path) -> None:
    with suppress(OSError, ValueError):
        process = int(file.read_text())
        os.kill(process, signal.SIGTERM)
        with suppress(AssertionError):
            wait_until(lambda: not Path(f"/proc/{process}").exists(), 15)
            return
        os.kill(process, signal.SIGKILL)


def free_ports(number: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Until something holds.

    Raises:
        AssertionError: It does not in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.2)
