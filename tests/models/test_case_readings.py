"""One look at each scan finds what the check, the fingerprint and the training domain find each for itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnsegfm.datasets.check import CaseCheck, examine
from lnsegfm.datasets.dataset import Case, Dataset, open_dataset
from lnsegfm.models import case_readings as module
from lnsegfm.models.case_readings import Readings, read_cases
from lnsegfm.models.fingerprint import fingerprint, fingerprint_of
from lnsegfm.models.training_domain import _measured
from lnsegfm.progress import Silent
from tests.scenes import write_scenes


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return open_dataset(write_scenes(tmp_path_factory.mktemp("clinic"), 3))


def readings(dataset: Dataset, folder: Path, axes: str | None = "RPS", processes: int = 1) -> Readings:
    names = [case.name for case in dataset.cases][:2]
    return read_cases(dataset, names, folder, Silent(), axes=axes, channel=0, processes=processes, join_after_s=0)


@pytest.mark.parametrize("axes", [None, "RPS"])
def test_what_is_found_is_what_each_finds(dataset: Dataset, tmp_path: Path, axes: str | None) -> None:
    read = readings(dataset, tmp_path, axes)
    assert read.checked == examine(dataset)
    assert dataset.content_hash(read.file_hashes) == dataset.content_hash()
    training = dataset.cases[:2]
    assert fingerprint_of(list(read.fingerprints.values())) == fingerprint(training, Silent(), axes)
    assert list(read.statistics.values()) == _measured(training, dataset.labels, 0, axes, Silent())


def test_no_scan_is_read_twice_unless_it_changed(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever number of processes read them, and whether or not some were read by a call that was stopped."""
    root = tmp_path / "clinic"
    shutil.copytree(dataset.root, root)
    own = open_dataset(root)
    first = readings(own, tmp_path / "found", processes=2)
    seen: list[str] = []
    examine_case = module.examine_case

    def noted(case: Case, *rest: Any, **more: Any) -> CaseCheck:
        seen.append(case.name)
        return examine_case(case, *rest, **more)

    monkeypatch.setattr(module, "examine_case", noted)
    again = readings(own, tmp_path / "found")
    assert seen == []
    assert again.checked == first.checked
    label = own.cases[1].label
    assert label is not None
    label.write_bytes(label.read_bytes())  # other times, the same bytes
    readings(own, tmp_path / "found")
    assert seen == [own.cases[1].name]
    for one, other in zip(again.fingerprints.values(), first.fingerprints.values(), strict=True):
        assert (one.spacing, one.shape, one.share) == (other.spacing, other.shape, other.share)
        assert np.array_equal(one.intensities, other.intensities)


def test_problems_are_those_of_the_check(dataset: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "clinic"
    shutil.copytree(dataset.root, root)
    own = open_dataset(root)
    image, label = own.cases[0].images[0], own.cases[1].label
    assert label is not None
    image.write_bytes(image.read_bytes()[:200])
    label.unlink()
    own = open_dataset(root)
    checked = readings(own, tmp_path / "found", axes=None).checked
    assert {problem.case for problem in checked.problems} == {own.cases[0].name, own.cases[1].name}
    assert checked == examine(own)
