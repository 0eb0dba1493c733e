"""Files that end in their header: what is left of a slice is told, never passed over."""

from __future__ import annotations

import numpy as np
import pydicom
import pytest
from pydicom.uid import SecondaryCaptureImageStorage

from lnsegfm.imaging.dicom.series import find_series
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

GRID = Grid((4, 4, 5), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))


@pytest.fixture
def files(tmp_path):
    return write_series(tmp_path / "ct", np.zeros(GRID.shape, np.int16), GRID)


def test_a_slice_cut_anywhere_is_told(files, tmp_path):
    whole = files[-1].read_bytes()

    for length in range(140, len(whole) - 1, 23):
        files[-1].write_bytes(whole[:length])  # the last one: no gap would tell of it
        found = find_series(tmp_path)
        assert [str(one).startswith("File 0003.dcm ") for one in found.refused] == [True], length
        assert "is cut short" in str(found.refused[0])


def test_a_secondary_capture_of_ct_without_its_size_is_told(files, tmp_path):
    for path in files:
        data = pydicom.dcmread(path)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        if path == files[-1]:
            del data.Rows
        data.save_as(path)
    found = find_series(tmp_path)
    assert [len(s.slices) for s in found.series] == [3]
    assert str(found.refused[0]).startswith("File 0003.dcm is cut short or damaged")


def test_what_is_no_ct_and_has_no_size_is_passed_over(files, tmp_path):
    for name, changes in {
        "report.dcm": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11", "Modality": "SR"},
        "raw.dcm": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66", "Modality": "CT"},
        "mr.dcm": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"},
    }.items():
        data = pydicom.dcmread(files[0])
        del data.Rows, data.Columns, data.PixelData
        for keyword, value in changes.items():
            setattr(data, keyword, value)
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.save_as(tmp_path / name)
    (tmp_path / "junk.dcm").write_bytes(b"\x08\0\x05\0CS\x04\0ABCD" + b"\0" * 40)

    found = find_series(tmp_path)

    assert found.refused == ()
    assert len(found.series) == 1


def test_a_search_for_other_images_says_nothing_of_ct(files, tmp_path):
    files[-1].write_bytes(files[-1].read_bytes()[:600])
    assert find_series(tmp_path, modalities=("MR",)).refused == ()
