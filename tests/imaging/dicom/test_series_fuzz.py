"""Headers changed at random: every image is in a series or told, and nothing raises or hangs."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.imaging.dicom.series import DicomError, find_series, read_series
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.planes import counted
from tests.imaging.dicom.scanner import write_series

GRID = Grid((6, 4, 5), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
VALUES: dict[str, list[object]] = {
    "ImagePositionPatient": [None, [0, 0], [0, 0, 1e9], [0, 0, 7.5], [1, 0, 6], ["a", "b", "c"]],
    "ImageOrientationPatient": [None, [0] * 6, [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0.99, 0.1], [1, 0, 0]],
    "PixelSpacing": [None, [0, 0], [2, 2], [1.0001, 1], [-1, 1]],
    "Rows": [None, 0, 3, 65535],
    "NumberOfFrames": [0, 3, -1],
    "SamplesPerPixel": [3],
    "BitsAllocated": [8, 1, 64],
    "FrameOfReferenceUID": [None, "", "1.99"],
    "SeriesInstanceUID": [None, "", "1.98"],
    "StudyInstanceUID": [None, "1.97"],
    "SOPClassUID": [None, "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.4"],
    "PatientID": ["", "other"],
    "ImageType": [None, "", ["ORIGINAL", "PRIMARY", "LOCALIZER"], ["DERIVED", "SECONDARY", "SCREEN SAVE"]],
    "AcquisitionNumber": [None, 2, 3],
    "AcquisitionTime": ["101010", "101011"],
    "ConvolutionKernel": ["B70f", ["a", "b"]],
    "KVP": ["80", ""],
}
changes = st.lists(
    st.tuples(st.integers(0, 11), st.sampled_from(sorted(VALUES)), st.integers(0, 5)), min_size=1, max_size=8
)


@pytest.fixture(scope="module")
def two_scans(tmp_path_factory) -> Path:
    """Two acquisitions of one series, half a step apart."""
    folder = tmp_path_factory.mktemp("two")
    uids = {"SeriesInstanceUID": "1.1", "StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.3"}
    for number, start in ((1, 0.0), (2, 1.5)):
        hu = np.random.default_rng(number).integers(-900, 900, GRID.shape)
        grid = Grid(GRID.shape, GRID.spacing_mm, (0.0, 0.0, start))
        write_series(folder, hu, grid, AcquisitionNumber=number, names=lambda k, n=number: f"{n}-{k}", **uids)
    return folder


@settings(max_examples=40, deadline=None)
@given(mutations=changes, resample=st.booleans())
def test_no_image_is_lost_without_a_word(tmp_path_factory, two_scans, mutations, resample):
    folder = tmp_path_factory.mktemp("fuzz")
    shutil.copytree(two_scans, folder / "ct")
    files = sorted((folder / "ct").iterdir())
    for k, keyword, which in mutations:
        data = pydicom.dcmread(files[k])
        values = VALUES[keyword]
        value = values[which % len(values)]
        if value is None:
            data.pop(keyword, None)
        elif isinstance(value, list) and isinstance(value[0], str) and keyword.endswith("Patient"):
            data[keyword] = pydicom.DataElement(keyword, "LO", value)
        else:
            setattr(data, keyword, value)
        data.save_as(files[k])
    found = find_series(folder, straighten=resample, resample_uneven=resample)
    frames = sum(number for _, number in found.others)
    told = counted(found.series, found.refused) + frames
    stated = [int(pydicom.dcmread(f).get("NumberOfFrames", 1) or 1) for f in files]
    if max(stated) == 1:
        assert told == len(files)
    else:
        assert told >= len(files) - sum(n > 1 for n in stated)
    for refusal in found.refused:
        assert "\n" not in refusal.reason
        assert refusal.reason.endswith(".")
    for series in found.series:
        with suppress(DicomError):  # pixels that contradict their header
            assert read_series(series).shape == series.grid.shape
    shutil.rmtree(folder)
