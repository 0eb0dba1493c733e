"""Jobs on a Ray cluster; one whose process or node is lost is tried again on another."""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lnsegfm.errors import ConfigError
from lnsegfm.jobs.engine_package import engine_package
from lnsegfm.jobs.engines import OnRay
from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.jobs.job_log import JobProgress
from lnsegfm.jobs.local_runner import Report
from lnsegfm.jobs.perform_job import perform
from lnsegfm.progress import Progress

_POLL_S, LEAVING_S, _ANSWERING_S = 1.0, 60.0, 10.0


def perform_on_ray(place: str, name: str) -> str | None:
    """Do a job in a process of Ray; what it says goes to Ray's logs.

    Returns:
        Why it failed; None when it is done.
    """
    return perform(JobFolder(Path(place)), name, JobProgress())


def run_on_ray(names: Sequence[str], folder: JobFolder, engine: OnRay, report: Report, progress: Progress) -> None:
    """Do jobs on a cluster that runs already, and wait for them.

    Raises:
        ConfigError: There is no such cluster, or no node of it has what a job asks for.
        KeyboardInterrupt: It arrived; jobs are asked to save their state.
    """
    ray = engine_package("ray", "ray")
    with _connected(ray, engine):
        _require_node(ray, engine)
        progress.stage(f"Ray: {len([node for node in ray.nodes() if node['Alive']])} nodes")
        options: dict[str, Any] = {"num_cpus": engine.cpus, "num_gpus": engine.gpus, "max_retries": engine.retries}
        task = ray.remote(**options, max_calls=1)(perform_on_ray)  # each in a process of its own, which frees its GPU
        waiting, running = deque(names), dict[Any, str]()
        try:
            while waiting or running:
                while waiting and (engine.at_once is None or len(running) < engine.at_once):
                    name = waiting.popleft()
                    running[task.remote(str(folder.place), name)] = name
                ended, _ = ray.wait(list(running), num_returns=1, timeout=_POLL_S)
                for each in ended:
                    name = running.pop(each)
                    report(name, _outcome(ray, each, folder, name))
        except KeyboardInterrupt:
            for each in running:
                ray.cancel(each)
            with suppress(KeyboardInterrupt):
                ray.wait(list(running), num_returns=len(running), timeout=LEAVING_S)
            raise


def _outcome(ray: Any, reference: Any, folder: JobFolder, name: str) -> str | None:
    try:
        reason: str | None = ray.get(reference)
    except ray.exceptions.RayError as error:
        if folder.is_done(name):
            return None
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        folder.record_failure(name, f"Ray: {type(error).__name__}: {first}")
        return folder.failure(name)
    if reason is None and not folder.is_done(name):
        folder.record_failure(name, "its node does not share this folder with this machine: no result has arrived")
        return folder.failure(name)
    return reason


@contextmanager
def _connected(ray: Any, engine: OnRay) -> Iterator[None]:
    """Be a client of the cluster; nothing is reported to Ray's makers, and signals stay this program's."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    where = engine.address or os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _require_listener(where)
        ray.init(address=where, log_to_driver=False, logging_level="error", include_dashboard=False)
    except (OSError, RuntimeError, ValueError) as error:
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
        raise ConfigError(
            f"--on ray: no cluster at {where} ({first}). Start one with ray start --head, or name its address: "
            "--on ray:HOST:PORT."
        ) from None
    finally:
        for number, handler in handlers.items():
            with suppress(ValueError):  # only the main thread may
                signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(where: str) -> None:
    """Ray itself would try an address where nobody listens for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = where.rpartition(":")
    if host and port.isdigit() and "://" not in where:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERING_S):
            pass


def _require_node(ray: Any, engine: OnRay) -> None:
    """Ray would wait for ever for a node that can take such a job."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= engine.cpus and node.get("GPU", 0) >= engine.gpus for node in nodes):
        raise ConfigError(
            f"--on ray: no node has {engine.cpus:g} cores and {engine.gpus:g} GPUs for a job. Ask for less: "
            "--on ray:cpus=1,gpus=0."
        )
