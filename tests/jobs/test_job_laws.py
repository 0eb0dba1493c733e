"""Whatever happens to attempts, a job is done once, its result is whole, and the others are done."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lnsegfm.errors import ConfigError, DataError, RunMismatch
from lnsegfm.jobs.attempt import begin_attempt
from lnsegfm.jobs.engines import OnThisMachine
from lnsegfm.jobs.job import Job
from lnsegfm.jobs.job_folder import JobFolder
from lnsegfm.jobs.parts import ListPart
from lnsegfm.jobs.perform_job import perform
from lnsegfm.jobs.run_jobs import run_jobs
from lnsegfm.progress import Progress, Silent
from lnsegfm.storage import write_text

pytestmark = pytest.mark.usefixtures("bodies")


def sums(number: int, log: Path | None = None, seconds: float = 0) -> list[Job]:
    extra = {"log": str(log)} if log is not None else {}
    return [Job(f"sum{k}", "add", {"a": k, "b": 10, "seconds": seconds, **extra}) for k in range(number)]


def tree(folder: Path) -> dict[str, str]:
    """Hashes of the files of all results, without what says who did them."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != "attempt.json"]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_results_are_the_same_whoever_does_the_jobs(tmp_path: Path) -> None:
    serial = run_jobs(sums(4), tmp_path / "serial")
    several = run_jobs(sums(4), tmp_path / "several", on=OnThisMachine(3))
    for number in (3, 1, 2):
        parts = run_jobs(sums(4), tmp_path / "parts", part=ListPart(number, 3))

    assert [found.content["sum"] for found in serial.done.values()] == [10, 11, 12, 13]
    assert serial.complete
    assert several.complete
    assert parts.complete
    assert tree(tmp_path / "several" / "results") == tree(tmp_path / "serial" / "results")
    assert tree(tmp_path / "parts" / "results") == tree(tmp_path / "serial" / "results")
    assert (serial.done["sum2"].files / "sum.txt").read_text() == "12"


def test_a_second_call_does_what_lacks(tmp_path: Path) -> None:
    log = tmp_path / "log"
    run_jobs(sums(2, log), tmp_path / "jobs")
    assert run_jobs(sums(5, log), tmp_path / "jobs").complete
    assert len(log.read_text().splitlines()) == 5


def test_a_job_that_fails_is_reported_and_the_others_are_done(tmp_path: Path) -> None:
    fixed, log = tmp_path / "fixed", tmp_path / "log"
    bad = {"unless": str(fixed), "log": str(log)}
    jobs = [*sums(1), Job("torn", "fail", {**bad, "told": True}), Job("bug", "fail", bad), *sums(3)[1:]]
    for engine in (OnThisMachine(1), OnThisMachine(2)):
        found = run_jobs(jobs, tmp_path / "jobs", on=engine)
        assert list(found.done) == ["sum0", "sum1", "sum2"]
        assert found.failed == {"torn": "Scan 7: it is torn. Export it again.", "bug": "ZeroDivisionError: by 0"}
        assert "Traceback" in (tmp_path / "jobs" / "logs" / "bug.log").read_text()

    fixed.touch()
    assert run_jobs(jobs, tmp_path / "jobs").complete
    assert len(log.read_text().splitlines()) == 6


def test_a_process_that_is_killed_takes_its_job_alone(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    jobs = [*sums(2), Job("killed", "die", {"unless": str(alive)}), *sums(4)[2:]]
    found = run_jobs(jobs, tmp_path / "jobs", on=OnThisMachine(2))
    assert len(found.done) == 4
    assert found.failed == {"killed": "its process was killed by signal 9"}

    alive.touch()
    assert run_jobs(jobs, tmp_path / "jobs", on=OnThisMachine(2)).complete


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_a_job_that_is_killed_goes_on_and_ends_as_undisturbed(tmp_path: Path, killed_at: int) -> None:
    log = tmp_path / "log"
    job = Job("count", "count", {"steps": 5, "killed_at": killed_at, "log": str(log)})
    first = run_jobs([job], tmp_path / "jobs", on=OnThisMachine(2))
    second = run_jobs([job], tmp_path / "jobs", on=OnThisMachine(2))
    assert first.failed
    assert second.done["count"].content == {"total": 0 + 1 + 4 + 9 + 16}
    assert [line.split()[2] for line in log.read_text().splitlines()] == ["0", str(killed_at)]
    assert not (tmp_path / "jobs" / "attempts" / "count").exists()


def test_a_job_that_is_asked_to_stop_keeps_its_state(tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "jobs"
    JobFolder(place).claim([Job("count", "count", {"steps": 150, "seconds": 0.02, "log": str(log)})])
    command = [sys.executable, "-m", "lnsegfm.jobs.perform_job", str(place), "count"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: list(place.glob("attempts/count/*/files/state.json")))
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in said
    (state,) = place.glob("attempts/count/*/files/state.json")
    stopped_at = int(state.read_text().split()[1].strip(","))
    assert 0 < stopped_at < 150
    assert perform(JobFolder(place), "count", Silent()) is None
    assert log.read_text().splitlines()[1].endswith(f"from {stopped_at}")


def test_two_copies_of_a_job_end_in_one_whole_result(tmp_path: Path) -> None:
    """The second copy begins while the first, which a scheduler took for dead, runs on; either may end first."""
    for first_ends in (True, False):
        folder = JobFolder(tmp_path / str(first_ends))
        job = Job("both", "add", {"a": 1, "b": 2})
        folder.claim([job])
        lost = begin_attempt(folder, job)
        write_text(lost.files / "begun.txt", "half")
        write_text(lost.files / ".partial-under-way", "torn")
        second = begin_attempt(folder, job)
        assert [file.name for file in second.files.iterdir()] == ["begun.txt"]
        write_text(second.files / "begun.txt", "second")
        assert (lost.files / "begun.txt").read_text() == "half"
        write_text(lost.files / "begun.txt", "first")
        winner, loser = (lost, second) if first_ends else (second, lost)
        winner.publish({"by": "winner"})
        loser.publish({"by": "loser"})  # finds the result, and leaves
        write_text(loser.files / "late.txt", "a write of a copy that does not know")
        loser.publish({"by": "loser"})
        found = folder.result("both")
        assert found is not None
        assert found.content == {"by": "winner"}
        assert sorted(file.name for file in found.files.iterdir() if file.name != ".partial-under-way") == ["begun.txt"]
        assert (found.files / "begun.txt").read_text() == ("first" if first_ends else "second")


def test_a_copy_whose_folder_is_gone_publishes_nothing(tmp_path: Path) -> None:
    folder, job = JobFolder(tmp_path), Job("gone", "add", {"a": 1, "b": 2})
    folder.claim([job])
    attempt = begin_attempt(folder, job)
    shutil.rmtree(attempt.root)
    write_text(attempt.files / "half.txt", "half")
    with pytest.raises(RunMismatch, match="is gone"):
        attempt.publish({})
    assert not folder.is_done("gone")


def test_two_calls_at_once_share_the_jobs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    JobFolder(tmp_path / "jobs").claim(sums(6, log, 0.1))
    code = (
        "import sys; from pathlib import Path; from lnsegfm.jobs.run_jobs import run_jobs;"
        "from lnsegfm.jobs.job_folder import JobFolder as F; p = Path(sys.argv[1]);"
        "jobs = [F(p).job(f'sum{k}') for k in range(6)]; assert run_jobs(jobs, p).complete"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "jobs")]) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    begun = log.read_text().split()
    assert len(begun) == 6
    assert len(set(begun)) == 2


def test_an_interrupted_call_stops_its_processes_which_keep_their_state(tmp_path: Path) -> None:
    log = tmp_path / "log"
    jobs = [Job(f"c{k}", "count", {"steps": 500, "seconds": 0.02, "log": str(log)}) for k in range(3)]
    stopping = StopAfter(tmp_path / "jobs", 2)
    with pytest.raises(KeyboardInterrupt):
        run_jobs(jobs, tmp_path / "jobs", on=OnThisMachine(2), progress=stopping)
    for line in log.read_text().splitlines():
        with pytest.raises(ProcessLookupError):
            os.kill(int(line.split()[0]), 0)
    assert len(list((tmp_path / "jobs").glob("attempts/*/*/files/state.json"))) == 2


class StopAfter(Progress):
    """Interrupts this process, as Ctrl-C does, once some jobs have saved a state."""

    def __init__(self, place: Path, jobs: int) -> None:
        import threading

        def wait() -> None:
            wait_for(lambda: len(list(place.glob("attempts/*/*/files/state.json"))) >= jobs)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=wait, daemon=True).start()


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_cores_and_gpus_are_shared_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"names": ["OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"]}
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    found = run_jobs([Job(f"t{k}", "tell", names) for k in range(2)], tmp_path / "jobs", on=OnThisMachine(2))
    told = [one.content for one in found.done.values()]
    assert sorted(one["CUDA_VISIBLE_DEVICES"] for one in told) == ["4", "7"]
    assert all(int(one["OMP_NUM_THREADS"]) >= 1 for one in told)


def test_a_folder_keeps_to_its_jobs(tmp_path: Path) -> None:
    run_jobs(sums(1), tmp_path)
    with pytest.raises(RunMismatch, match=r"job sum0 is there with b 10, not 11"):
        run_jobs([Job("sum0", "add", {"a": 0, "b": 11, "seconds": 0})], tmp_path)
    with pytest.raises(ConfigError, match="two have this name"):
        run_jobs([*sums(1), *sums(1)], tmp_path)


def test_a_record_names_a_body_and_nothing_else(tmp_path: Path) -> None:
    found = run_jobs([Job("x", "os:system", {"command": "true"})], tmp_path / "a")
    assert found.failed["x"].startswith("Job body os:system: there is none. Known are: ")
    for name in ("../x", "a/b", "", ".hidden", "x" * 200):
        with pytest.raises(ConfigError, match="not a name"):
            Job(name, "add")
    with pytest.raises(ConfigError, match="not plain JSON"):
        Job("x", "add", {"a": object()})
    with pytest.raises(DataError, match="not of the format"):
        Job.from_json({"name": "x"})
