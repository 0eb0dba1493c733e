"""Several processes predict into one folder at once: each case is done by one of them, and the folder is the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lnsegfm.evaluation.postprocessing import LargestComponent, Postprocessing
from lnsegfm.models.model_folder import Model, read_model
from lnsegfm.models.postprocessing_files import write_postprocessing
from lnsegfm.prediction.predict_cases import predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.scans import find_scans
from tests.prediction.test_predict_flags import write_random
from tests.scenes import scene, write_image

CASES = 8
WORKER = """
import json, os, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from lnsegfm.jobs.parts import ListPart
from lnsegfm.models.model_folder import read_model
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_cases import as_json, predict_cases
from lnsegfm.prediction.predict_options import PredictOptions
from lnsegfm.prediction.predictor import Predictor
run = Predictor.run
def slow(self, *arguments, **named):
    with open(job["log"], "a") as log:
        log.write(f"{os.getpid()}\\n")
    time.sleep(job["seconds"])
    return run(self, *arguments, **named)
Predictor.run = slow
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    options = PredictOptions(nodes=True, mirroring=False, device="cpu", overwrite=job["overwrite"])
    model = read_model(Path(job["model"]))
    with find_inputs(Path(job["scans"]), 1) as scans:
        part = ListPart.parse(job["part"]) if job["part"] else None
        found = predict_cases(model, scans, Path(job["out"]), options, summary=True, part=part)
    print(json.dumps(as_json(found)), flush=True)
"""


class Worker:
    """A process that predicts when it is asked to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **job: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def workers() -> Iterator[list[Worker]]:
    started = [Worker() for _ in range(3)]
    for worker in started:
        assert worker.process.stdout is not None
        assert worker.process.stdout.readline() == "ready\n"
    yield started
    for worker in started:
        worker.process.kill()
        worker.process.communicate()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shared")
    for case in range(CASES):
        write_image(folder / "scans" / f"case_{case}.nii.gz", scene(case)[0])
    (folder / "scans" / "broken.nii.gz").write_bytes(b"no scan")
    write_random(folder / "model")
    write_postprocessing(folder / "model", Postprocessing((LargestComponent((1,)),)))
    return folder


@pytest.fixture(scope="module")
def alone(place: Path) -> dict[str, bytes]:
    """What one process leaves."""
    model: Model = read_model(place / "model")
    options = PredictOptions(nodes=True, mirroring=False, device="cpu")
    predict_cases(model, find_scans(place / "scans", 1).cases, place / "alone", options, summary=True)
    return content(place / "alone")


@pytest.fixture
def job(place: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def described(*, overwrite: bool = False, seconds: float = 0.1, part: str | None = None) -> dict[str, Any]:
        paths = {"model": place / "model", "scans": place / "scans", "out": tmp_path / "out", "log": tmp_path / "log"}
        return {name: str(path) for name, path in paths.items()} | {
            "overwrite": overwrite,
            "seconds": seconds,
            "part": part,
        }

    return described


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def runs(tmp_path: Path) -> list[int]:
    """The process of each scan that was on a network."""
    log = tmp_path / "log"
    return [int(line) for line in log.read_text().split()] if log.is_file() else []


def test_each_case_is_done_once_and_the_folder_is_as_of_one_process(workers, job, alone, tmp_path):
    for worker in workers:
        worker.ask(**job())
    found = [worker.answer() for worker in workers]
    everyone = [f"case_{n}" for n in range(CASES)]
    assert sorted(case for one in found for case in one["done"]) == everyone
    for one in found:
        assert sorted(one["done"] + one["skipped"]) == everyone
        assert list(one["failed"]) == ["broken"]
    assert len(runs(tmp_path)) == CASES
    assert len(set(runs(tmp_path))) > 1  # they did share the work
    assert found[0]["flags"] == found[1]["flags"] == found[2]["flags"]
    assert content(tmp_path / "out") == alone

    before = content(tmp_path / "out")
    inodes = {file.name: file.stat().st_ino for file in (tmp_path / "out").glob("*.nii.gz")}
    for worker in workers[:2]:  # masks that are there, each made anew once
        worker.ask(**job(overwrite=True))
    found = [worker.answer() for worker in workers[:2]]
    assert sorted(case for one in found for case in one["done"]) == everyone
    for one in found:
        assert sorted(one["done"] + one["skipped"]) == everyone
    assert len(runs(tmp_path)) == 2 * CASES
    after = content(tmp_path / "out")
    assert {name: after[name] for name in after if name.endswith((".nii.gz", ".csv"))} == {
        name: before[name] for name in before if name.endswith((".nii.gz", ".csv"))
    }
    assert all((tmp_path / "out" / name).stat().st_ino != inode for name, inode in inodes.items())
    assert json.loads(after["masks.json"])["generation"] == 1


def test_four_parts_at_once_and_a_process_that_does_all(workers, job, alone, tmp_path):
    asked = [(workers[0], "1/4"), (workers[1], "2/4"), (workers[2], "3/4"), (workers[1], "4/4"), (workers[0], None)]
    for worker, part in asked:
        worker.ask(**job(part=part, seconds=0.05))
    found = [worker.answer() for worker, _ in asked]
    assert sorted(case for one in found for case in one["done"]) == [f"case_{n}" for n in range(CASES)]
    assert [len(one["done"]) + len(one["skipped"]) for one in found] == [2, 2, 2, 2, CASES]
    assert len(runs(tmp_path)) == CASES
    assert content(tmp_path / "out") == alone


def test_what_a_killed_process_had_begun_is_done_by_another(workers, job, alone, tmp_path):
    survivor, victim = workers[:2]
    for worker in (victim, survivor):
        worker.ask(**job(seconds=0.3))
    deadline = time.monotonic() + 60
    while Counter(runs(tmp_path))[victim.process.pid] < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    victim.process.send_signal(signal.SIGKILL)  # a scan on the network, one read ahead, perhaps one being written
    found = survivor.answer()
    assert sorted(found["done"] + found["skipped"]) == [f"case_{n}" for n in range(CASES)]
    assert found["skipped"]  # what the victim had finished stays
    assert Counter(runs(tmp_path))[survivor.process.pid] == len(found["done"]) > 0
    assert CASES <= len(runs(tmp_path)) <= CASES + 2
    assert content(tmp_path / "out") == alone  # and nothing else: no lock, nothing half-written
