"""Segmentations at the edge: encodings that few write, and what the check before writing must see."""

from __future__ import annotations

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from lnsegfm.imaging.dicom import seg_write
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask, segments_mask
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_seg import other_seg, saved, scan

GRID = Grid((4, 5, 7), (2.5, 0.7, 0.6), (1, 2, 3))  # 35 pixels a frame: frames start within a byte
MASK = (np.random.default_rng(0).random(GRID.shape) < 0.4).astype(np.uint8)


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Series:
    return scan(tmp_path_factory.mktemp("ct"), GRID)


def test_half_of_the_maximum_is_inside(ct, tmp_path):
    values = np.full((*GRID.shape, 1), 0.5)
    values[0], values[1] = 99 / 200, 0
    back = read_seg(saved(other_seg(ct, values, "FRACTIONAL", max_fractional_value=200), tmp_path / "a.dcm"))
    assert segment_mask(back, 1, GRID).any((1, 2)).tolist() == [False, False, True, True]
    assert segment_mask(back, 1, GRID, threshold=0.495).any((1, 2)).tolist() == [True, False, True, True]
    assert segment_mask(back, 1, GRID, threshold=1e-9).any((1, 2)).tolist() == [True, False, True, True]


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_deflated(ct, tmp_path, kind):
    data = other_seg(ct, MASK[..., None] if kind != "FRACTIONAL" else MASK[..., None].astype(float), kind)
    plain = dcmread(saved(data, tmp_path / "plain.dcm"))
    plain.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    back = read_seg(saved(plain, tmp_path / "a.dcm"))
    assert np.array_equal(segment_mask(back, 1, GRID), MASK > 0)
    plain.PixelData = plain.PixelData[:10]
    with pytest.raises(DicomError, match=r"its pixels are cut short \(10 of"):
        read_seg(saved(plain, tmp_path / "a.dcm"))


def test_a_label_map_of_16_bit_in_big_endian(ct, tmp_path):
    data = dcmread(saved(other_seg(ct, MASK[..., None], "LABELMAP"), tmp_path / "plain.dcm"))
    values = data.pixel_array.astype(np.uint16) * 300
    data.SegmentSequence[-1].SegmentNumber = 300
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelData = 15, values.astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dcmwrite(tmp_path / "a.dcm", data, implicit_vr=False, little_endian=False, enforce_file_format=True)
    assert np.array_equal(segment_mask(read_seg(tmp_path / "a.dcm"), 300, GRID), MASK > 0)


def test_bit_frames_that_lack_their_last_byte(tmp_path):
    series = scan(tmp_path / "ct", Grid((4, 3, 11), (2.5, 0.7, 0.6)))
    data = other_seg(series, np.ones((4, 3, 11, 1), np.uint8), "BINARY")
    data.PixelData = data.PixelData[:16]  # 132 bits begin a 17th byte
    with pytest.raises(DicomError, match=r"its pixels are cut short \(16 of 17 bytes\)"):
        read_seg(saved(data, tmp_path / "a.dcm"))


@pytest.mark.parametrize("labels", [{"a": -1}, {"a": 1, "b": -2}, {"a": 0}])
def test_labels_have_values_above_0(ct, tmp_path, labels):
    with pytest.raises(DicomError, match="each needs a value of its own above 0"):
        write_seg(tmp_path / "a.dcm", MASK, labels, ct)


def test_frames_without_a_voxel_are_left_out(ct, tmp_path):
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1, 2, 3], mask[2, 2, 3], mask[2, 1, 1] = 1, 2, 1
    write_seg(tmp_path / "a.dcm", mask, {"a": 1, "b": 2}, ct)
    assert dcmread(tmp_path / "a.dcm").NumberOfFrames == 3


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_the_empty_frame_of_an_empty_mask_lies_on_the_first_slice(ct, tmp_path, kind):
    write_seg(tmp_path / "a.dcm", MASK * 0, {"a": 1}, ct, kind=kind)
    frames = read_seg(tmp_path / "a.dcm").frames
    assert [frame.plane.position_mm for frame in frames] == [ct.slices[0].position_mm]


def test_a_frame_that_is_there_twice_is_not_put_in_place(ct, tmp_path, monkeypatch):
    """A viewer that adds frames up would show it otherwise than one that lays them over each other."""
    encode, doubly = seg_write.encode, []

    def doubled(*given):
        data = encode(*given)
        groups = list(data.PerFrameFunctionalGroupsSequence)
        data.PerFrameFunctionalGroupsSequence = [*groups, groups[0]]
        data.PixelData = data.pixel_array.tobytes() + data.pixel_array[0].tobytes() + b"\0"
        data.NumberOfFrames = len(groups) + 1
        doubly.append(np.count_nonzero(data.pixel_array[0]))
        return data

    monkeypatch.setattr(seg_write, "encode", doubled)
    with pytest.raises(DicomError, match="voxels of the segmentation differ") as error:
        write_seg(tmp_path / "a.dcm", MASK, {"LN": 1}, ct, kind="LABELMAP")
    assert f": {doubly[0]} voxels" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_slices_a_little_off_their_place_get_frames_on_the_grid(tmp_path):
    """0.08 mm are a sixth of these slices: more than a reader that resamples nothing forgives."""
    grid = Grid(GRID.shape, (0.5, 0.7, 0.6))

    def change(data, k):
        data.ImagePositionPatient[2] = 0.5 * k + 0.08 * (k == 2)

    write_series(tmp_path / "ct", np.zeros(grid.shape, int), grid, change=change)
    series = series_of(tmp_path / "ct")
    write_seg(tmp_path / "a.dcm", MASK, {"LN": 1}, series)
    assert np.array_equal(segments_mask(read_seg(tmp_path / "a.dcm"), series.grid, ["LN=a"], {"a": 1}), MASK)
