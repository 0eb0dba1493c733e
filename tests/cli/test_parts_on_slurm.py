"""Cohorts on a real SLURM leave what one process leaves, byte for byte."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.test_work_in_parts import Run, evaluate, labelled, place, predict, predicted  # noqa: F401 - fixtures
from tests.datasets.convert.clinic import bytes_under
from tests.jobs.slurm_cluster import PROGRAMS, SlurmCluster, missing

pytestmark = pytest.mark.services
ON = ("--on", "slurm:main,cpus=1,mem=1.5,time=10", "--jobs", "2")
HANDED_IN = "SLURM: 2 jobs handed in"


@pytest.fixture(scope="module", autouse=True)
def slurm() -> Iterator[None]:
    if reason := missing(*PROGRAMS):
        pytest.skip(f"SLURM: {reason}")
    pytest.importorskip("submitit")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    cluster = SlurmCluster(folder, accounting=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "src"))
        yield
    cluster.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_evaluate(predicted: Path, tmp_path: Path, lnsegfm_here: Run) -> None:  # noqa: F811
    lnsegfm_here(*evaluate(predicted, tmp_path / "serial"))
    slurm = lnsegfm_here(*evaluate(predicted, tmp_path / "slurm", *ON))
    assert HANDED_IN in slurm.stderr
    assert bytes_under(tmp_path / "slurm") == bytes_under(tmp_path / "serial")


def test_predict(place: Path, tmp_path: Path, lnsegfm_here: Run) -> None:  # noqa: F811
    serial = lnsegfm_here(*predict(place, tmp_path / "serial"))
    slurm = lnsegfm_here(*predict(place, tmp_path / "slurm", *ON))
    assert bytes_under(tmp_path / "slurm") == bytes_under(tmp_path / "serial")
    assert HANDED_IN in slurm.stderr
    assert (slurm.returncode, slurm.stdout.splitlines()[0][:12]) == (serial.returncode, "5 predicted,")


def test_data_check(labelled: Path, tmp_path: Path, lnsegfm_here: Run) -> None:  # noqa: F811
    serial = lnsegfm_here("data", "check", labelled, "--json")
    slurm = lnsegfm_here("data", "check", labelled, "--json", "--work", tmp_path / "work", *ON)
    assert HANDED_IN in slurm.stderr
    assert (slurm.stdout, slurm.returncode) == (serial.stdout, serial.returncode)


def test_pretrain_prepares(labelled: Path, tmp_path: Path, lnsegfm_here: Run) -> None:  # noqa: F811
    words = ["pretrain", labelled, "--prepare-only", "--exclude", "case_1,case_3", "--iterations", 2]
    serial = lnsegfm_here(*words, "--out", tmp_path / "serial")
    assert serial.returncode == 0, serial.stderr
    slurm = lnsegfm_here(*words, "--out", tmp_path / "slurm", *ON)
    assert slurm.returncode == 0, slurm.stderr
    assert slurm.stderr.count(HANDED_IN) == 2  # to read, and to prepare
    assert bytes_under(tmp_path / "slurm") == bytes_under(tmp_path / "serial")
    assert slurm.stdout == serial.stdout.replace("/serial", "/slurm")
