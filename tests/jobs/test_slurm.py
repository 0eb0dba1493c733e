"""Jobs on a real SLURM of two nodes, with accounting and without: done once, whatever happens to nodes."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.errors import ConfigError
from lnsegfm.jobs.engines import OnSlurm, engine_of
from lnsegfm.jobs.job import Job
from lnsegfm.jobs.run_jobs import JobOutcomes, run_jobs
from lnsegfm.progress import Progress
from tests.jobs.slurm_cluster import ACCOUNTING, PROGRAMS, SlurmCluster, missing, wait_until
from tests.jobs.test_job_laws import sums, tree

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("bodies")]
ON = "slurm:main,cpus=1,mem=0.5,time=10"


@pytest.fixture(scope="module", params=["without accounting", "with accounting"])
def running(request: pytest.FixtureRequest) -> Iterator[SlurmCluster]:
    accounting = request.param == "with accounting"
    if reason := missing(*PROGRAMS, *(ACCOUNTING if accounting else ())):
        pytest.skip(f"SLURM {request.param}: {reason}")
    pytest.importorskip("submitit")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = SlurmCluster(folder, accounting=accounting)
    yield cluster
    cluster.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def slurm(running: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> SlurmCluster:
    monkeypatch.setenv("SLURM_CONF", running.environment["SLURM_CONF"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    wait_until(lambda: running.run("sinfo", "-h", "-o", "%T", "-p", "main").split() == ["idle"], 120)
    return running


class Said(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def stage(self, text: str) -> None:
        self.lines.append(text)


def in_thread(call: Callable[[], JobOutcomes]) -> Callable[[], JobOutcomes]:
    """Begin a call; gives what waits for its outcome."""
    found: list[Any] = []

    def keep() -> None:
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=keep, daemon=True)
    thread.start()

    def outcome() -> JobOutcomes:
        thread.join(timeout=300)
        assert found, "the call does not end"
        if isinstance(found[0], BaseException):
            raise found[0]
        return found[0]

    return outcome


def starts(log: Path) -> list[str]:
    return [line.split("from ")[1] for line in log.read_text().splitlines()] if log.exists() else []


def test_an_array_gives_the_serial_results(slurm: SlurmCluster, tmp_path: Path) -> None:
    serial = run_jobs(sums(5), tmp_path / "serial")
    found = run_jobs(sums(5), tmp_path / "slurm", on=ON)
    assert found.complete
    assert {name: one.content for name, one in found.done.items()} == {n: o.content for n, o in serial.done.items()}
    assert tree(tmp_path / "slurm" / "results") == tree(tmp_path / "serial" / "results")


def test_a_killed_job_fails_with_its_reason_and_a_second_call_does_it_alone(
    slurm: SlurmCluster, tmp_path: Path
) -> None:
    log, fixed, alive = tmp_path / "log", tmp_path / "fixed", tmp_path / "alive"
    jobs = [
        *sums(1, log),
        Job("killed", "die", {"unless": str(alive), "log": str(log)}),
        Job("broken", "fail", {"unless": str(fixed), "told": True, "log": str(log)}),
        *sums(3, log)[1:],
    ]
    found = run_jobs(jobs, tmp_path / "jobs", on=ON)
    assert list(found.done) == ["sum0", "sum1", "sum2"]
    assert found.failed["broken"] == "Scan 7: it is torn. Export it again."
    assert found.failed["killed"].startswith("SLURM: FAILED: killed by signal 9: see ")

    begun = len(log.read_text().splitlines())
    fixed.touch()
    alive.touch()
    assert run_jobs(jobs, tmp_path / "jobs", on=ON).complete
    assert (begun, len(log.read_text().splitlines())) == (5, 7)


def test_a_preempted_job_is_queued_again_and_ends_as_undisturbed(slurm: SlurmCluster, tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "jobs"
    job = Job("count", "count", {"steps": 120, "seconds": 0.1, "log": str(log)})
    outcome = in_thread(lambda: run_jobs([job], place, on=ON))
    wait_until(lambda: list(place.glob("attempts/count/*/files/state.json")), 120)
    slurm.run("sbatch", "-p", "urgent", "-N2", "-c1", "--mem=500M", "-o", "/dev/null", "--wrap", "srun sleep 2")
    found = outcome()
    undisturbed = run_jobs([Job("count", "count", {**job.inputs, "seconds": 0})], tmp_path / "other")
    assert found.done["count"].content == undisturbed.done["count"].content
    first, second = starts(log)[:2]
    assert first == "0"
    assert int(second) > 0  # it went on


def test_a_job_that_reaches_its_time_limit_goes_on(slurm: SlurmCluster, tmp_path: Path) -> None:
    log = tmp_path / "log"
    job = Job("count", "count", {"steps": 150, "seconds": 0.5, "log": str(log)})
    found = run_jobs([job], tmp_path / "jobs", on="slurm:main,cpus=1,mem=0.5,time=1,signal=40")
    assert found.done["count"].content == {"total": sum(k * k for k in range(150))}
    assert len(starts(log)) > 1


def test_a_node_that_is_declared_down_runs_on_and_the_job_is_done_once(slurm: SlurmCluster, tmp_path: Path) -> None:
    """Its daemon is killed, so nothing stops the copy that it had started."""
    log, place = tmp_path / "log", tmp_path / "jobs"
    job = Job("count", "count", {"steps": 150, "seconds": 0.1, "log": str(log)})
    outcome = in_thread(lambda: run_jobs([job], place, on=ON))
    wait_until(lambda: list(place.glob("attempts/count/*/files/state.json")), 120)
    node = slurm.run("squeue", "-h", "-o", "%N").split()[0]
    slurm.kill_node(node)
    try:
        found = outcome()
        assert found.done["count"].content == {"total": sum(k * k for k in range(150))}
        assert [each.name for each in (place / "results").iterdir()] == ["count"]
        assert not list(place.rglob(".partial-*"))
        assert len(starts(log)) == 2  # two copies began
    finally:
        slurm.resume_node(node)


def test_a_second_call_waits_for_jobs_that_the_first_left(slurm: SlurmCluster, tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "jobs"
    jobs = sums(2, log, 6)
    said = Said()

    class Interrupting(Said):
        def stage(self, text: str) -> None:
            super().stage(text)
            if "handed in" in text:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, place, on=ON, progress=Interrupting())
    assert run_jobs(jobs, place, on=ON, progress=said).complete
    assert said.lines[0] == "SLURM: 2 jobs of an earlier call still there"
    assert len(log.read_text().splitlines()) == 2


def test_a_cancelled_job_fails_with_its_reason(slurm: SlurmCluster, tmp_path: Path) -> None:
    place = tmp_path / "jobs"
    outcome = in_thread(lambda: run_jobs(sums(1, tmp_path / "log", 60), place, on=ON))
    wait_until(lambda: (tmp_path / "log").exists(), 120)
    slurm.run("scancel", "--user=root")
    assert "SLURM: CANCELLED: it was cancelled" in outcome().failed["sum0"]


def test_what_sbatch_refuses_is_said(slurm: SlurmCluster, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sbatch refuses: Batch job submission failed: Invalid partition name"):
        run_jobs(sums(2), tmp_path / "jobs", on="slurm:nowhere,cpus=1,mem=0.5")


def test_a_job_that_slurm_has_forgotten_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without accounting, on a controller that forgets at once."""
    if reason := missing(*PROGRAMS):
        pytest.skip(f"SLURM: {reason}")
    pytest.importorskip("submitit")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = SlurmCluster(folder, accounting=False, forgets_s=2)
    try:
        monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        jobs = [Job("killed", "die", {"unless": str(tmp_path / "never")}), *sums(1)]
        found = run_jobs(jobs, tmp_path / "jobs", on=ON)
        assert list(found.done) == ["sum0"]
        assert found.failed["killed"].startswith("SLURM")
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_spelling() -> None:
    asked = engine_of("slurm:gpu,long,time=30,mem=1.5,cpus=2,gpus=1,account=lab,qos=low", 3)
    assert asked == OnSlurm(3, "gpu,long", 30, 1.5, 2, 1, further={"account": "lab", "qos": "low"})
