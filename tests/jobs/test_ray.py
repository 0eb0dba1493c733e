"""Jobs on a real Ray of two nodes, in a network namespace where loopback is the only network."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.jobs.engines import OnRay, engine_of
from tests.jobs.ray_cluster import in_namespace

LOOPBACK = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
"""127.0.0.1, ::1 and ::ffff:127.0.0.1 as the kernel writes them."""


@pytest.fixture
def namespaces() -> None:
    pytest.importorskip("ray")
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("Ray: a network namespace needs root and unshare")


@pytest.mark.services
@pytest.mark.usefixtures("bodies", "namespaces")
def test_a_killed_raylet_leaves_all_jobs_done(tmp_path: Path) -> None:
    seen = in_namespace(tmp_path, "counting")
    total = sum(k * k for k in range(80))
    assert seen["done"] == {f"count{k}": {"total": total} for k in range(4)}
    assert seen["failed"] == {}
    assert (seen["killed"], seen["raylets"]) == (1, 1)
    assert len(seen["starts"]) == 5
    assert sum(start != "0" for start in seen["starts"]) == 1  # the one that was lost went on
    assert seen["partial"] == []
    assert set(seen["listening"]) <= LOOPBACK


@pytest.mark.services
@pytest.mark.usefixtures("bodies", "namespaces")
def test_failures_are_reported_and_a_second_call_does_them_alone(tmp_path: Path) -> None:
    seen = in_namespace(tmp_path, "failing")
    assert seen["first"]["done"] == ["sum"]
    assert seen["first"]["failed"]["broken"] == "Scan 7: it is torn. Export it again."
    assert seen["first"]["failed"]["killed"].startswith("Ray: WorkerCrashedError")
    assert seen["second"] == {"done": ["sum", "broken", "killed"], "failed": {}}
    assert seen["sum"] == {"sum": 3}
    assert seen["refused"][0].startswith("--on ray: no cluster at 127.0.0.1:1 (")
    assert seen["refused"][1].startswith("--on ray: no node has 1 cores and 1 GPUs for a job.")


def test_spelling() -> None:
    assert engine_of("ray:10.0.0.1:6379,cpus=2,gpus=0.5", 4) == OnRay(4, "10.0.0.1:6379", 2, 0.5)
    assert engine_of("ray") == OnRay()
    for wrong in ("ray:a:1,b:2", "ray:a:1,mem=3", "ray:cpus=x", "cloud", "local:4", "slurm:time=0", "slurm:mem=nan"):
        with pytest.raises(ConfigError, match="--on "):
            engine_of(wrong)
