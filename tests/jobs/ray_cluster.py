"""A Ray cluster of two nodes where loopback is the only network, and a list of jobs on it.

``python -m tests.jobs.ray_cluster FOLDER SCENE`` in a network namespace of its own (`in_namespace`): Ray looks for the
machine's address and would listen there. Prints what it saw as one line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.jobs.job import Job
from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.jobs.run_jobs import run_jobs
from tests.jobs.slurm_cluster import wait_until

HEAD = "127.0.0.1:26379"
_NAMESPACE, _OUTSIDE = Path("/proc/self/ns/net"), "LNSEGFM_TESTS_OUTER_NAMESPACE"
_MEMORY = "--object-store-memory=100000000"


def in_namespace(
    folder: Path, scene: str, timeout_s: float = 280, *, module: str = "tests.jobs.ray_cluster"
) -> dict[str, Any]:
    """Run a scene of this or another module where only loopback is; needs root."""
    command = ["unshare", "-n", "bash", "-c", 'ip link set lo up && exec "$@"', "namespace"]
    command += [sys.executable, "-m", module, str(folder), scene]
    environment = os.environ | {_OUTSIDE: str(_NAMESPACE.readlink())}
    answer = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=environment)
    lines = [line for line in answer.stdout.splitlines() if line.startswith("{")]
    assert lines, answer.stdout[-3000:] + answer.stderr[-3000:]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


class RayCluster:
    """A head and a second node, of one core each."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self.second: list[int] = []
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        first = ("--head", "--port=26379", "--include-dashboard=false", f"--temp-dir={self.folder}")
        self._start(*first, *_ports(20100), "--dashboard-agent-listen-port=52465")
        before = raylets()
        os.environ["RAY_enable_multi_node"] = "1"  # noqa: SIM112 - Ray spells it so
        self._start(f"--address={HEAD}", *_ports(20200), "--dashboard-agent-listen-port=52466")
        self.second = sorted(set(raylets()) - set(before))

    def _start(self, *options: str) -> None:
        common = ("--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats", _MEMORY)
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *common]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    def kill_second(self) -> None:
        """Kill the second node's raylet; its workers die with it, or run on."""
        for process in self.second:
            os.kill(process, signal.SIGKILL)

    def stop(self) -> None:
        """End all processes of this namespace that Ray started, and no others."""
        for process in of_this_namespace():
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


def _ports(first: int) -> tuple[str, str]:
    return f"--min-worker-port={first}", f"--max-worker-port={first + 99}"


def of_this_namespace() -> list[int]:
    """The other processes of this network namespace."""
    here = _NAMESPACE.readlink()
    assert str(here) != os.environ[_OUTSIDE], "not a namespace of our own: its processes are not ours"
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (place / "ns" / "net").readlink() == here and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


def raylets() -> list[int]:
    """The raylets of this network namespace."""
    found = []
    for process in of_this_namespace():
        with suppress(OSError):
            if Path(f"/proc/{process}/exe").readlink().name == "raylet":
                found.append(process)
    return found


def listening() -> list[str]:
    """Addresses that processes of this network namespace listen on, in hexadecimal as the kernel gives them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                found.add(fields[1].partition(":")[0])
    return sorted(found)


def counting(folder: Path) -> dict[str, Any]:
    """Four jobs, and the second raylet is killed while they run."""
    cluster = RayCluster()
    try:
        log = folder / "log"
        counts = {"steps": 80, "seconds": 0.1, "log": str(log)}
        jobs = [Job(f"count{k}", "count", {**counts, "k": k}) for k in range(4)]

        def kill() -> None:
            wait_until(lambda: len(list((folder / "jobs").glob("attempts/*/*/files/state.json"))) >= 2, 120)
            cluster.kill_second()

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        began = time.monotonic()
        found = run_jobs(jobs, folder / "jobs", on=f"ray:{HEAD}")
        return {
            "seconds": time.monotonic() - began,
            "done": {name: one.content for name, one in found.done.items()},
            "failed": dict(found.failed),
            "raylets": len(raylets()),
            "killed": len(cluster.second),
            "starts": [line.split("from ")[1] for line in log.read_text().splitlines()],
            "partial": [str(file) for file in (folder / "jobs" / "results").rglob(".partial-*")],
            "listening": listening(),
        }
    finally:
        cluster.stop()


def failing(folder: Path) -> dict[str, Any]:
    """Jobs that fail, die and are done; a second call; what no node has; and a cluster that is not there."""
    refused = []
    for on in ("ray:127.0.0.1:1",):
        try:
            run_jobs([Job("x", "add", {"a": 1, "b": 2})], folder / "none", on=on)
        except ConfigError as error:
            refused.append(str(error))
    cluster = RayCluster()
    try:
        fixed = folder / "fixed"
        jobs = [
            Job("sum", "add", {"a": 1, "b": 2}),
            Job("broken", "fail", {"unless": str(fixed), "told": True}),
            Job("killed", "die", {"unless": str(fixed)}),
        ]
        first = run_jobs(jobs, folder / "jobs", on=f"ray:{HEAD},retries=1")
        fixed.touch()
        second = run_jobs(jobs, folder / "jobs", on=f"ray:{HEAD}")
        try:
            run_jobs([Job("y", "add", {"a": 1, "b": 2})], folder / "jobs", on=f"ray:{HEAD},gpus=1")
        except ConfigError as error:
            refused.append(str(error))
        listed = JobFolder(folder / "jobs").result("sum")
        return {
            "first": {"done": list(first.done), "failed": dict(first.failed)},
            "second": {"done": list(second.done), "failed": dict(second.failed)},
            "sum": listed.content if listed is not None else None,
            "refused": refused,
        }
    finally:
        cluster.stop()


if __name__ == "__main__":
    print(json.dumps({"counting": counting, "failing": failing}[sys.argv[2]](Path(sys.argv[1]))), flush=True)
