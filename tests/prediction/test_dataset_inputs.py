"""A dataset stands for the folder of its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import write_volume
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.predict_options import PredictOptions


def scan(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_volume(path, np.zeros((4, 5, 6), np.int16), Grid(shape=(4, 5, 6), spacing_mm=(1.0, 1.0, 1.0)))


@pytest.mark.parametrize(
    ("images", "file"), [("images", "a.nii.gz"), ("images", "a_0000.nii.gz"), ("imagesTr", "a_0000.nii.gz")]
)
def test_the_images_of_a_dataset_are_predicted(tmp_path: Path, images: str, file: str):
    scan(tmp_path / images / file)
    scan(tmp_path / "labels" / "a.nii.gz")
    with find_inputs(tmp_path, 1) as found:
        assert [(case.name, case.images) for case in found.cases] == [("a", (tmp_path / images / file,))]
        assert found.note == f"Scans: those in {tmp_path / images}"
    with find_inputs(tmp_path / images, 1) as same:
        assert ([case.name for case in same.cases], same.note) == (["a"], "")


def test_scans_that_are_there_besides_are_named(tmp_path: Path):
    scan(tmp_path / "imagesTr" / "a_0000.nii.gz")
    scan(tmp_path / "imagesTs" / "b_0000.nii.gz")
    with find_inputs(tmp_path, 1) as found:
        assert [case.name for case in found.cases] == ["a"]
        assert found.note.endswith(f"; give {tmp_path / 'imagesTs'} for the scans there")


def test_masks_do_not_go_among_the_images(tmp_path: Path):
    scan(tmp_path / "images" / "a.nii.gz")
    with (
        pytest.raises(DataError, match="the scans lie there"),
        find_inputs(tmp_path, 1, out=tmp_path / "x" / ".." / "images"),
    ):
        pass


def names_of(place: Path, **chosen: object) -> list[str]:
    with find_inputs(place, 1, choice=PredictOptions(**chosen).choice) as found:
        return [case.name for case in found.cases]


def test_scans_are_chosen_by_name(tmp_path: Path):
    for name in ("a", "b", "c"):
        scan(tmp_path / "images" / f"{name}_0000.nii.gz")
    (tmp_path / "names.txt").write_text("case\nc\na  # this one too\n")
    assert names_of(tmp_path, cases=["b"]) == ["b"]
    assert names_of(tmp_path, cases=str(tmp_path / "names.txt")) == ["a", "c"]
    assert names_of(tmp_path, exclude="a,b") == ["c"]
    assert names_of(tmp_path, cases=("a", "b"), exclude=("b",)) == ["a"]
    with pytest.raises(ConfigError, match=r"--cases d: no scan has this name\. There are: a, b, c"):
        names_of(tmp_path, cases="d")
    with pytest.raises(ConfigError, match="no case is left"):
        names_of(tmp_path, exclude=("a", "b", "c"))


def test_lines_of_a_list_that_fail_concern_only_the_scans_that_are_chosen(tmp_path: Path):
    scan(tmp_path / "a.nii.gz")
    (tmp_path / "list.csv").write_text("path,case\na.nii.gz,first\nb.nii.gz,second\n")
    with (
        find_inputs(tmp_path / "list.csv", 1) as every,
        find_inputs(tmp_path / "list.csv", 1, choice=PredictOptions(cases=("first",)).choice) as one,
    ):
        assert [lost.case for lost in every.refused] == ["second"]
        assert one.refused == ()


def test_a_list_may_name_a_dataset(tmp_path: Path):
    scan(tmp_path / "clinic" / "images" / "a.nii.gz")
    (tmp_path / "list.csv").write_text("path\nclinic\n")
    with find_inputs(tmp_path / "list.csv", 1) as found:
        assert [case.name for case in found.cases] == ["a"]


def test_folders_of_other_names_are_still_to_be_arranged(tmp_path: Path):
    scan(tmp_path / "scans" / "a.nii.gz")
    with pytest.raises(DataError, match="lnsegfm data arrange"), find_inputs(tmp_path, 1):
        pass
