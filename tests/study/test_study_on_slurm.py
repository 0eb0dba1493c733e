"""A study on a real SLURM of two nodes, with and without accounting: the serial table, whatever happens to jobs."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest

from lnsegfm.study.run_study import StudyOutcome, run_study
from lnsegfm.study.study_file import read_study
from lnsegfm.study.study_table import TABLE, StudyTable
from tests.jobs.slurm_cluster import wait_until
from tests.jobs.test_slurm import ON, in_thread, running, slurm  # noqa: F401 - fixtures
from tests.study.tiny_study import TOML, content, write_study

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("one_thread")]
MEMORY = ON.replace("mem=0.5", "mem=1.9")


def run(file: Path, out: Path) -> StudyOutcome:
    return run_study(read_study(file), out, on=MEMORY, device="cpu", workers=0)


def logs(out: Path) -> str:
    """What jobs said so far."""
    return "".join(file.read_text(errors="replace") for file in out.glob("jobs/slurm/*/*_log.out"))


def begun(out: Path) -> list[Path]:
    return list(out.glob("jobs/attempts/run_*_s[12]_*/*/attempt.json"))


def test_an_array_gives_the_serial_table(slurm, tiny_study, tmp_path):  # noqa: F811
    outcome = run(tiny_study.file, tmp_path / "two")
    assert not outcome.failed
    assert not outcome.lacking
    assert content(tmp_path / "two") == content(tiny_study.out)


def test_a_killed_run_is_failed_with_its_reason_and_a_second_call_does_it_alone(slurm, tiny_study, tmp_path):  # noqa: F811
    out = tmp_path / "two"
    outcome = in_thread(lambda: run(tiny_study.file, out))
    wait_until(lambda: begun(out), 300)
    os.kill(json.loads(begun(out)[0].read_text())["process"], signal.SIGKILL)
    found = outcome()
    (name,) = found.failed
    assert "killed by signal 9" in found.failed[name]
    assert StudyTable(out / TABLE).runs()[name].state == "failed"
    assert len(found.done) == 8
    before = {place.parent.name: place.stat().st_mtime_ns for place in out.glob("jobs/results/*/done.json")}

    assert not run(tiny_study.file, out).failed
    after = {place.parent.name: place.stat().st_mtime_ns for place in out.glob("jobs/results/*/done.json")}
    assert before.items() <= after.items()
    assert content(out) == content(tiny_study.out)


def test_a_preempted_run_goes_on_where_it_was_and_ends_as_undisturbed(slurm, world, tmp_path):  # noqa: F811
    text = TOML.replace("[1, 2]", "[1]").replace("draws = 2", "draws = 1").replace("iterations = 2", "iterations = 400")
    file = write_study(world, tmp_path, text)
    undisturbed = run_study(read_study(file), tmp_path / "here", device="cpu", workers=0)
    out = tmp_path / "there"
    outcome = in_thread(lambda: run(file, out))
    wait_until(lambda: "Training: 400" in logs(out), 300)
    slurm.run("sbatch", "-p", "urgent", "-N2", "-c1", "--mem=500M", "-o", "/dev/null", "--wrap", "srun sleep 2")
    found = outcome()
    assert found.done == undisturbed.done
    assert 0 < int(re.findall(r"continued at (\d+)", logs(out))[0]) < 400
    assert content(out) == content(tmp_path / "here")
