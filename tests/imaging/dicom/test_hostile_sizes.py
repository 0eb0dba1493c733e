"""Files that are well formed and ask for too much: memory and time stay those of the scan, not of the claim."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from lnsegfm.imaging.dicom.code_stream import read_code_stream
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask
from lnsegfm.imaging.dicom.series import find_series, read_series
from lnsegfm.imaging.dicom.structure_masks import structures_mask
from lnsegfm.imaging.dicom.values import integer, numbers, text
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.test_hostile import BASES, GRID


def peak_mb(call: Callable[[], Any]) -> float:
    tracemalloc.start()
    try:
        call()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak / 1e6


def test_a_frame_far_larger_than_the_scan(tmp_path):
    BASES["SEG binary"](tmp_path / "x")
    data = dcmread(tmp_path / "x" / "seg.dcm")
    data.Rows = data.Columns = 4096
    data.PixelData = b"\xff" * (4096 * 4096 // 8 * int(data.NumberOfFrames))
    data.save_as(tmp_path / "a.dcm")

    def call() -> None:
        with pytest.raises(DicomError, match=f"has {4096 * 4096 - 16 * 18} voxels outside the grid"):
            segment_mask(read_seg(tmp_path / "a.dcm"), 1, GRID)

    assert peak_mb(call) < 150


def test_a_contour_that_goes_up_and_down_all_the_time(tmp_path):
    BASES["RTSTRUCT"](tmp_path / "x")
    data = dcmread(tmp_path / "x" / "rs.dcm")
    contour, count = data.ROIContourSequence[0].ContourSequence[0], 20_000
    x = np.random.default_rng(0).random(count) * 300
    points = np.stack([x, np.where(np.arange(count) % 2, 1.0, 360.0), np.full(count, 3.0)], axis=1)
    value = "\\".join(f"{v:.4g}" for v in points.ravel()).encode()
    contour[Tag("ContourData")] = RawDataElement(Tag("ContourData"), "UT", 0, value, 0, False, True)
    data.save_as(tmp_path / "a.dcm")
    drawn, grid = read_rtstruct(tmp_path / "a.dcm"), Grid((3, 512, 512), GRID.spacing_mm, GRID.origin_mm)
    # 10 million cuts of edges and rows, of 100 bytes each
    assert peak_mb(lambda: structures_mask(drawn, grid, ["*=a"], {"a": 1})) < 400


def many_frames(folder: Path, frames: list[Dataset]) -> Path:
    BASES["multi-frame"](folder)
    file = next(folder.iterdir())
    data = dcmread(file)
    data.Rows = data.Columns = 4
    data.NumberOfFrames = len(frames)
    data.PixelData = np.random.default_rng(0).bytes(32 * len(frames))
    data.PerFrameFunctionalGroupsSequence = frames
    data.save_as(file)
    return folder


def frame(height: float, spacing: float | None = None) -> Dataset:
    own, place, measures = Dataset(), Dataset(), Dataset()
    place.ImagePositionPatient = [0, 0, height]
    own.PlanePositionSequence = [place]
    if spacing is not None:
        measures.PixelSpacing = [round(spacing, 4), 1]
        own.PixelMeasuresSequence = [measures]
    return own


def test_many_frames_at_the_same_places_are_read_once(tmp_path, monkeypatch):
    from lnsegfm.imaging.dicom import pixels

    opened: list[Path] = []
    read = pixels.read_dataset
    monkeypatch.setattr(pixels, "read_dataset", lambda path, *a, **b: opened.append(path) or read(path, *a, **b))
    found = find_series(many_frames(tmp_path / "x", [frame(k % 10) for k in range(200)]))
    assert len(opened) == 1
    assert "has 20 different images at 10 of its 10 positions" in found.refused[0].reason


def test_every_frame_of_another_spacing(tmp_path):
    start = time.perf_counter()
    found = find_series(many_frames(tmp_path / "x", [frame(k, 1 + k / 100) for k in range(1000)]))
    assert "more than 64 sizes, spacings and orientations" in found.refused[0].reason
    assert time.perf_counter() - start < 10


def test_many_structures_take_no_longer_than_reading_them(tmp_path):
    BASES["RTSTRUCT"](tmp_path / "x")
    data = dcmread(tmp_path / "x" / "rs.dcm")
    data.StructureSetROISequence = [named(k % 3000, ROIName=f"a{k}") for k in range(4000)]
    data.save_as(tmp_path / "a.dcm")
    assert sum(bool(roi.damage) for roi in read_rtstruct(tmp_path / "a.dcm").rois) == 2000


def named(number: int, **more: object) -> Dataset:
    item = Dataset()
    item.ROINumber = number
    for key, value in more.items():
        setattr(item, key, value)
    return item


# ----------------------------------------------------------------------------------------------------- one value


def raw(keyword: str, kind: str, value: bytes) -> Dataset:
    data, tag = Dataset(), Tag(keyword)
    data[tag] = RawDataElement(tag, kind, len(value), value, 0, False, True)
    return data


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"CT", "CT"),
        (b"CT\0\0", "CT"),
        (b"CT\x08\x00\x70\x00LO\x08\x00Phantom\x10\x00\x10\x00PN\x08\x00Doe^Jane", "CT"),
        (b"A\x1b[31mB\r\nC", "A [31mB  C"),
        (b"x" * 5000, "x" * 1024),
    ],
)
def test_a_text_ends_where_the_next_element_begins(value, expected):
    assert text(raw("SeriesDescription", "UT", value), "SeriesDescription") == expected


def test_what_is_no_text_and_no_number():
    assert text(raw("SeriesDescription", "OB", b"12"), "SeriesDescription") == ""
    assert text(raw("SeriesDescription", "SQ", b""), "SeriesDescription") == ""
    assert numbers(raw("PixelSpacing", "OB", b"12"), "PixelSpacing", 2) is None
    assert numbers(raw("PixelSpacing", "LO", b"12"), "PixelSpacing", 2) is None
    for value in (b"nan\\1 ", b"1\\-inf", b"1e300\\1", b"1", b"1\\2\\3 ", b"a\\b "):
        assert numbers(raw("PixelSpacing", "DS", value), "PixelSpacing", 2) is None
    assert numbers(raw("PixelSpacing", "DS", b"0.5\\1e3 "), "PixelSpacing", 2) == (0.5, 1000.0)
    for value in (b"9" * 400, b"99999999999 ", b"1e400 ", b"x ", b""):
        assert integer(raw("NumberOfFrames", "IS", value), "NumberOfFrames") is None
    assert integer(raw("NumberOfFrames", "IS", b"12"), "NumberOfFrames") == 12


def test_a_header_that_contradicts_the_picture(tmp_path):
    for codec in ("CT JPEG 2000", "CT JPEG-LS", "CT JPEG lossless"):
        folder = tmp_path / codec
        BASES[codec](folder)
        for file in folder.iterdir():
            data = dcmread(file)
            data.Rows, data.Columns = 4, 5
            data.save_as(file)
        with pytest.raises(DicomError, match=r"cannot be decoded .*ValueError"):
            read_series(find_series(folder).series[0])


def test_the_size_within():
    sof = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xff\xc3\x00\x0b\x10\x00\x10\x00\x12\x01"
    sizes = b"".join(v.to_bytes(4, "big") for v in (20, 19, 2, 3, 18, 16, 0, 0))
    siz = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + sizes + b"\x00\x01\x8c"

    def within(frame: bytes) -> tuple[object, ...]:
        found = read_code_stream(frame)
        assert found is not None
        return found.rows, found.columns, found.precision, found.signed, found.components, found.ended

    assert within(sof) == (16, 18, 16, False, 1, False)
    assert within(sof.replace(b"\xc3", b"\xf7") + b"\xff\xd9") == (16, 18, 16, False, 1, True)
    assert within(siz) == (16, 18, 13, True, 1, False)
    assert within(siz[:-1] + b"\x0b\xff\xd9") == (16, 18, 12, False, 1, True)
    for nothing in (b"", b"\xff\xd8", b"\xff\xd8\xff\xc4\x00\x02" * 3, siz[:20], b"\xff\xd8\xff\xff\xff\xff\xff"):
        assert read_code_stream(nothing) is None
