"""Names in every alphabet go from the source and the labels into a SEG, and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

GRID = Grid((3, 5, 7), (2, 1, 1))
MASK = (np.indices(GRID.shape).sum(0) % 3 == 0).astype(np.uint8)


def scan(folder: Path, charset: object = None, name: str = "Doe^Jane", **tags: object) -> Series:
    def change(data: Dataset, _: int) -> None:
        if charset is not None:
            data.SpecificCharacterSet = charset
        data.PatientName, data.StudyDescription = name, "Hals"

    write_series(folder, MASK * 0, GRID, change=change, **tags)
    return series_of(folder)


@pytest.mark.filterwarnings("ignore")  # pydicom's, on the sources: some are not as they should be
@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (None, "Doe^Jane"),
        ("ISO_IR 100", "Müller^Jörg"),
        ("ISO_IR 144", "Люкceмбypг"),
        ("ISO_IR 192", "王^小东"),
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("NONSENSE", "Doe^Jane"),
    ],
)
@pytest.mark.parametrize("label", ["LN", "Lymphknoten ü", "Узел", "リンパ節"])
def test_any_alphabet(tmp_path, charset, name, label):
    series = scan(tmp_path / "ct", charset, name)
    write_seg(tmp_path / "a.dcm", MASK, {label: 1}, series)
    data = dcmread(tmp_path / "a.dcm")
    assert (data.PatientName, data.StudyDescription, data.PatientID) == (name, "Hals", "P1")
    assert read_seg(tmp_path / "a.dcm").names == (label,)
    assert np.array_equal(segment_mask(read_seg(tmp_path / "a.dcm"), 1, GRID), MASK > 0)


def test_a_name_that_is_cut_at_a_blank(tmp_path):
    series = scan(tmp_path / "ct", SeriesNumber=2**31 - 1)
    write_seg(tmp_path / "a.dcm", MASK, {"x" * 63 + " and more": 1}, series)
    assert read_seg(tmp_path / "a.dcm").names == ("x" * 63,)
    assert dcmread(tmp_path / "a.dcm").SeriesNumber == 1000  # no room for a sum, and not the source's own


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_of_the_whole_file(tmp_path, kind, syntax):
    pieces = np.zeros(GRID.shape, np.int32)
    pieces.ravel()[:] = np.arange(105)
    many = {"a": 1, **{f"empty {k}": k for k in range(2, 255)}}  # 357 segments: 16 bits a pixel of a label map
    mask = (pieces > 0).astype(np.uint8)
    write_seg(tmp_path / "a.dcm", mask, many, scan(tmp_path / "ct"), instances=pieces, kind=kind)
    data = dcmread(tmp_path / "a.dcm")
    data.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian and kind == "LABELMAP":
        assert data.BitsAllocated == 16
        data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
    dcmwrite(tmp_path / "b.dcm", data, implicit_vr=False, little_endian=syntax != ExplicitVRBigEndian)
    back = read_seg(tmp_path / "b.dcm")
    for number in (1, 50, 104):
        assert np.array_equal(segment_mask(back, number, GRID), pieces == number)


def test_pixels_that_end_within_their_last_byte_but_one(tmp_path):
    plane = np.zeros(GRID.shape, np.uint8)
    plane[1] = 1
    write_seg(tmp_path / "a.dcm", plane, {"LN": 1}, scan(tmp_path / "ct"))
    data = dcmread(tmp_path / "a.dcm")
    data.PixelData = data.PixelData[:4]  # of 35 bits
    data.save_as(tmp_path / "b.dcm")
    with pytest.raises(DicomError, match=r"cut short \(4 of 5 bytes\)"):
        read_seg(tmp_path / "b.dcm")
