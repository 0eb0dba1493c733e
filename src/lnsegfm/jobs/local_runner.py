"""Jobs on this machine: one after the other in this process, or several processes at a time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from lnsegfm.cores import THREADS, usable_cores
from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.jobs.perform_job import BUSY, perform
from lnsegfm.progress import Progress

GPUS = "CUDA_VISIBLE_DEVICES"
LEAVING_S = 120.0
"""Seconds that processes get to save their state when the work is interrupted."""
_POLL_S, _LONGEST_WAIT_S = 0.1, 2.0
Report = Callable[[str, str | None], None]
"""Called with each job that has ended, and why it failed."""


def run_here(names: Sequence[str], folder: JobFolder, report: Report, progress: Progress) -> None:
    """Do jobs in this process; those that another process is at are tried again at the end.

    Raises:
        Interrupted: Asked to stop.
        KeyboardInterrupt: It arrived.
    """
    pending, busy, wait_s = deque(names), 0, _POLL_S
    while pending:
        name = pending.popleft()
        lock = folder.take(name)
        if lock is None and not folder.is_done(name):
            pending.append(name)
            busy += 1
            if busy >= len(pending):
                if wait_s == _POLL_S:
                    progress.stage(f"Waiting for another process to finish {', '.join(list(pending)[:3])}")
                time.sleep(wait_s)
                busy, wait_s = 0, min(2 * wait_s, _LONGEST_WAIT_S)
            continue
        busy, wait_s = 0, _POLL_S
        try:
            reason = perform(folder, name, progress)
        finally:
            if lock is not None:
                lock.release()
        report(name, reason)


def run_in_processes(names: Sequence[str], folder: JobFolder, at_once: int, report: Report) -> None:
    """Do jobs in processes of this machine, each in one of its own; GPUs and cores are shared out.

    A process that dies takes its job alone with it. When the work is interrupted, all are asked to save their state.

    Raises:
        KeyboardInterrupt: It arrived.
    """
    gpus = visible_gpus()
    free = deque(range(min(at_once, len(names))))
    waiting, running, later = deque(names), dict[int, tuple[str, subprocess.Popen[bytes]]](), _POLL_S
    try:
        while waiting or running:
            while waiting and free:
                slot, name = free.popleft(), waiting.popleft()
                running[slot] = name, _start(folder, name, share(slot, at_once, gpus))
            busy = False
            for slot, (name, process) in list(running.items()):
                if (code := process.poll()) is None:
                    continue
                del running[slot]
                free.append(slot)
                if code == BUSY:
                    waiting.append(name)
                    busy = True
                else:
                    report(name, _reason(folder, name, code))
                    later = _POLL_S
            later = min(2 * later, _LONGEST_WAIT_S) if busy else later
            time.sleep(later if busy else _POLL_S)
    finally:
        _stop([process for _, process in running.values()])


def share(slot: int, at_once: int, gpus: Sequence[str]) -> dict[str, str]:
    """The environment of a process that is one of several: its GPU, and its share of the cores.

    Args:
        slot: Which of the processes, from 0.
        at_once: How many there are.
        gpus: The GPUs of all; where there are fewer of them than processes, some share one.
    """
    environment = dict(os.environ)
    environment.setdefault(THREADS, str(max(1, usable_cores() // at_once)))
    if gpus:
        environment[GPUS] = gpus[slot % len(gpus)]
    return environment


def visible_gpus(drivers: Path = Path("/proc/driver/nvidia/gpus")) -> tuple[str, ...]:
    """Names of the GPUs that this process may use, without loading torch; empty where there are none."""
    if (stated := os.environ.get(GPUS)) is not None:
        return tuple(name.strip() for name in stated.split(",") if name.strip() and name.strip() != "-1")
    with suppress(OSError, subprocess.SubprocessError):
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return tuple(line.strip() for line in listed.stdout.splitlines() if line.strip().isdigit())
    with suppress(OSError):
        return tuple(str(number) for number in range(len(list(drivers.iterdir()))))
    return ()


def _start(folder: JobFolder, name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-u", "-m", "lnsegfm.jobs.perform_job", str(folder.place), name]
    with folder.log(name).open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a terminal's interrupt reaches this process, which passes it on
        )


def _reason(folder: JobFolder, name: str, code: int) -> str | None:
    """Why the process of a job that has ended did not do it."""
    if folder.is_done(name):
        return None
    if code < 0:
        folder.record_failure(name, f"its process was killed by signal {-code}")
    elif (reason := folder.failure(name)) is not None:
        return reason
    else:
        folder.record_failure(name, f"its process ended with exit code {code}: see {folder.log(name)}")
    return folder.failure(name)


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + LEAVING_S
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
