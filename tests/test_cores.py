"""Threads fit the cores that a process was given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lnsegfm import cores
from lnsegfm.cores import share_threads, usable_cores


def system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A made-up ``/proc`` and ``/sys``."""
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{k}": v for k, v in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)


@pytest.mark.usefixtures("eight")
@pytest.mark.parametrize(
    ("groups", "files", "wanted"),
    [
        ("", {}, 8),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9000000 100000\n"}, 8),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
        ("0::/a/b\n", {"a/cpu.max": "600000 100000\n", "a/b/cpu.max": "400000 100000\n"}, 4),
        ("4:cpu,cpuacct:/x\n", {"cpu/x/cpu.cfs_quota_us": "500000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 5),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ("4:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ("4:memory:/\n", {"cpu.max": "100000 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 8),
        ("nonsense\n0\n", {"cpu.max": "nonsense\n"}, 8),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, groups: str, files: dict[str, str], wanted: int) -> None:
    assert usable_cores(system(tmp_path, groups, files)) == wanted


def test_this_machine_gives_at_least_one_core() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("given", "set_before", "wanted"), [(4, None, "4"), (4, "2", "2"), (64, None, None)])
def test_threads_are_set_only_where_cores_are_withheld(
    monkeypatch: pytest.MonkeyPatch, given: int, set_before: str | None, wanted: str | None
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cores, "usable_cores", lambda: given)
    environment = {cores.THREADS: set_before} if set_before else {}
    monkeypatch.setattr(os, "environ", environment)
    share_threads()
    assert environment.get(cores.THREADS) == wanted
    assert environment[cores.WAIT] == "PASSIVE"
