from __future__ import annotations

import numpy as np
import pytest
from nibabel.loadsave import save
from nibabel.nifti1 import Nifti1Image

from lnsegfm.datasets.dataset import Case
from lnsegfm.errors import DataError
from lnsegfm.imaging.files import read_volume
from lnsegfm.prediction.inputs import find_inputs
from lnsegfm.prediction.scans import Scans, find_scans


def folder(tmp_path, *names):
    for name in names:
        (tmp_path / f"{name}.nii.gz").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "cases"),
    [
        (("amos_0001", "amos_0004", "amos_0012"), ("amos_0001", "amos_0004", "amos_0012")),
        (("amos_0000", "amos_0001"), ("amos_0000", "amos_0001")),
        (("a_0000", "b_0000"), ("a", "b")),
        (("a_0000", "b", "amos_0007"), ("a", "amos_0007", "b")),
        (("ct_2024_0000", "ct_2025_0000"), ("ct_2024", "ct_2025")),
        (("scan_0001_0000", "scan_0002_0000"), ("scan_0001", "scan_0002")),
    ],
)
def test_with_one_channel_only_0000_is_a_channel(tmp_path, files, cases):
    found = find_scans(folder(tmp_path, *files), 1)

    assert tuple(case.name for case in found.cases) == cases
    assert found.refused == ()


def test_a_file_alone_is_named_as_it_is_in_its_folder(tmp_path):
    place = folder(tmp_path, "amos_0001")

    assert [case.name for case in find_scans(place / "amos_0001.nii.gz", 1).cases] == ["amos_0001"]


def test_a_case_that_lacks_a_channel_stops_no_other(tmp_path):
    found = find_scans(folder(tmp_path, "a_0000", "a_0001", "b_0000", "c_0001", "odd"), 2)

    assert [case.name for case in found.cases] == ["a"]
    assert [failure.case for failure in found.refused] == ["b", "c", "odd"]
    assert "channels [0] are there, but the model takes 2" in str(found.refused[0])


def test_no_case_with_all_channels_is_an_error_that_names_each(tmp_path):
    with pytest.raises(DataError) as error:
        find_scans(folder(tmp_path, "b_0000", "c_0001"), 2)

    assert len(error.value.problems) == 2


def test_two_files_of_one_case_are_refused(tmp_path):
    (tmp_path / "a.nrrd").write_bytes(b"")

    with pytest.raises(DataError, match="is the same case"):
        find_scans(folder(tmp_path, "a"), 1)


@pytest.mark.parametrize("straighten", [True, False])
def test_a_sheared_file_is_opened_at_right_angles_when_asked(tmp_path, straighten):
    matrix = np.diag([1, 1, 3.0, 1])
    matrix[1, 2] = 0.6
    image = Nifti1Image(np.random.default_rng(0).integers(-100, 100, (8, 9, 7)).astype(np.int16), matrix)
    image.set_qform(None, 0)
    save(image, tmp_path / "a.nii.gz")
    scans = Scans((Case("a", (tmp_path / "a.nii.gz",)),), straighten=straighten)

    with scans.opened(scans.cases[0]) as case:
        if straighten:
            assert read_volume(case.images[0])[1] == read_volume(tmp_path / "a.nii.gz", straighten=True)[1]
        else:
            assert case == scans.cases[0]
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("files", "cases", "masks"),
    [
        (("P1", "P1_seg", "P2", "P2-label"), ("P1", "P2"), ("P1_seg", "P2-label")),
        (("P1_ct", "P1_mask"), ("P1_ct",), ("P1_mask",)),
        (("P1_0000", "P1_gt"), ("P1",), ("P1_gt",)),
        (("P1_seg", "P2_seg"), ("P1_seg", "P2_seg"), ()),  # names of cases: no image beside them
        (("P1", "P10_seg"), ("P1", "P10_seg"), ()),
    ],
)
def test_masks_beside_their_images_are_no_scans(tmp_path, files, cases, masks):
    found = find_scans(folder(tmp_path, *files), 1)

    assert tuple(case.name for case in found.cases) == cases
    assert tuple(mask.name.removesuffix(".nii.gz") for mask in found.masks) == masks


def test_images_in_folders_within_are_refused_with_the_commands_that_help(tmp_path):
    folder(tmp_path / "in")
    (tmp_path / "in" / "P1").mkdir(parents=True)
    (tmp_path / "in" / "P1" / "ct.nii.gz").write_bytes(b"")
    with (
        pytest.raises(
            DataError, match=rf"a CSV with the column path, .*: lnsegfm data arrange {tmp_path / 'in'} --out"
        ),
        find_inputs(tmp_path / "in", 1),
    ):
        pass
