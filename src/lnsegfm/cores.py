"""The processor cores that this process may use: what the machine has, less what it was not given; its memory."""

from __future__ import annotations

import math
import os
from pathlib import Path

THREADS = "OMP_NUM_THREADS"
"""What torch, SimpleITK and numpy's libraries read when they are loaded."""
WAIT = "OMP_WAIT_POLICY"


def usable_cores(root: Path = Path("/")) -> int:
    """Cores, at least 1: of the machine, less those that affinity (taskset, Slurm) or a quota (containers) withhold.

    Libraries count the cores of the machine and know nothing of a quota: with 64 threads on a quota of 4 cores most of
    the time goes into threads that wait for one another.

    Args:
        root: Where the system's ``proc`` and ``sys`` lie.

    Source: Linux kernel documentation, "Control Group v2", ``cpu.max``; "CFS Bandwidth Control", ``cpu.cfs_quota_us``.
    """
    known = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([known, *_quotas(root)]))


def machine_memory() -> float:
    """Bytes of memory that the machine has; infinite where the system does not say, as on Windows."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):
        return math.inf


def share_threads() -> None:
    """Have libraries that are loaded from now on use the cores that there are, and wait without spinning.

    Threads that spin while they wait slow each other down many times where cores are shared. What the user has set
    stands.
    """
    os.environ.setdefault(WAIT, "PASSIVE")
    cores = usable_cores()
    if cores < (os.cpu_count() or 1):
        os.environ.setdefault(THREADS, str(cores))


def _quotas(root: Path) -> list[int]:
    """The quotas in cores, rounded up, of this process's control group and of those around it."""
    quotas = []
    mounts = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, group = line.partition(":")
        controllers, _, path = group.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = mounts / "cpu" if controllers else mounts
        for part in ["", *(part for part in path.split("/") if part not in ("", ".."))]:
            folder = folder / part
            if controllers:
                numbers = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
            else:
                numbers = _read(folder / "cpu.max").split()
            if len(numbers) == 2 and all(number.isdigit() for number in numbers) and int(numbers[1]):
                quotas.append(math.ceil(int(numbers[0]) / int(numbers[1])))
    return quotas


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
