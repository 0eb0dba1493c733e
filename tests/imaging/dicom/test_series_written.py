"""A series written in each equivalent way: the same HU in every reader, and structures that go out and come back."""

from __future__ import annotations

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import RLELossless

from lnsegfm.imaging.dicom.annotated_series import read_annotated_tree
from lnsegfm.imaging.dicom.annotation_masks import annotation_mask
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import find_series, read_series, series_of
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_series import enhanced

GRID = Grid((12, 32, 40), (2.5, 0.8, 0.8), (-16.0, -12.0, -701.3))
HU = np.random.default_rng(0).integers(-1000, 1500, GRID.shape)
MASK = np.zeros(GRID.shape, np.uint8)
MASK[3:9, 5:20, 8:25] = 1
MASK[5, 9:12, 12:15] = 0
UIDS = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.7"}


def frames_each(data, k):
    data.FrameOfReferenceUID = f"1.7.{k + 1}"


def frames_halves(data, k):
    data.FrameOfReferenceUID = f"1.7.{1 + (k > 7)}"


def frame_missing(data, k):
    if k == 11:
        del data.FrameOfReferenceUID


def noise(data, k):
    rng = np.random.default_rng(k)
    data.ImageOrientationPatient = [f"{v:.8f}" for v in np.array([1, 0, 0, 0, 1, 0]) + rng.normal(0, 2e-4, 6)]
    data.ImagePositionPatient[2] = f"{float(data.ImagePositionPatient[2]) + rng.uniform(-0.04, 0.04):.4f}"


def tenths(data, k):
    data.ImagePositionPatient = [f"{float(v):.1f}" for v in data.ImagePositionPatient]


def step_and_shoot(data, k):
    data.AcquisitionNumber, data.AcquisitionTime = k // 2 + 1, f"1010{k // 2:02d}"


def some_compressed(data, k):
    if k % 3 == 0:
        data.compress(RLELossless, generate_instance_uid=False)


WAYS = {
    "plain": None,
    "a frame of reference for each slice": frames_each,
    "two frames of reference": frames_halves,
    "one slice without a frame of reference": frame_missing,
    "noise": noise,
    "positions rounded to tenths": tenths,
    "step and shoot": step_and_shoot,
    "some slices compressed": some_compressed,
    "twice, in folders": None,
}


@pytest.fixture(params=WAYS)
def folder(tmp_path, request):
    place = tmp_path / "ct"
    files = write_series(place, HU, GRID, change=WAYS[request.param], **UIDS)
    if request.param == "twice, in folders":
        for k, file in enumerate(files):
            for part in ("a", "b")[: 1 + (k % 2 == 0)]:
                (place / part).mkdir(exist_ok=True)
                shutil.copy(file, place / part / f"{99 - k}")
            file.unlink()
    return place


def test_every_reader_has_the_same_hu(folder):
    series = series_of(folder)
    volume = read_series(series)
    np.testing.assert_array_equal(volume, HU)
    assert series.grid.difference(GRID, tolerance_mm=0.06) is None
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(s.path) for s in series.slices])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(reader.Execute()), volume)
    places = [sitk.ReadImage(str(s.path)).GetOrigin()[2] for s in series.slices]
    assert places == sorted(places)


def test_structures_go_out_and_come_back(folder, tmp_path):
    series = series_of(folder)
    labels = {"background": 0, "ln": 1}
    write_rtstruct(tmp_path / "rs.dcm", MASK, labels, series)
    write_seg(tmp_path / "seg.dcm", MASK, labels, series)
    tree = read_annotated_tree(tmp_path)
    (scan,) = tree.index.series
    assert tree.orphans == ()
    assert sorted(each.kind for each in tree.by_series[0]) == ["RTSTRUCT", "SEG"]
    for each in tree.by_series[0]:
        np.testing.assert_array_equal(annotation_mask(each, scan, ["ln=ln"], {"ln": 1}), MASK)


def test_what_was_drawn_in_the_frame_of_any_slice_belongs_to_the_series(tmp_path):
    write_series(tmp_path / "ct", HU, GRID, change=frames_each, **UIDS)
    write_rtstruct(tmp_path / "rs.dcm", MASK, {"background": 0, "ln": 1}, series_of(tmp_path / "ct"))
    data = pydicom.dcmread(tmp_path / "rs.dcm")
    for item in (data, data.ReferencedFrameOfReferenceSequence[0]):
        item.FrameOfReferenceUID = "1.7.5"
    data.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.7.5"
    data.save_as(tmp_path / "rs.dcm")
    tree = read_annotated_tree(tmp_path)
    (each,) = tree.by_series[0]
    np.testing.assert_array_equal(annotation_mask(each, tree.index.series[0], ["ln=ln"], {"ln": 1}), MASK)


@pytest.mark.parametrize("offset", [0.0, 0.5, 1.1 / 2.5])
def test_two_acquisitions_are_two_right_volumes(tmp_path, offset):
    """At the same places, half a step apart (together one even stack), and anyhow apart."""
    second = np.clip(HU + 60, -1000, 1500)
    lower = Grid(GRID.shape, GRID.spacing_mm, (-16.0, -12.0, -701.3 + 2.5 * offset))
    write_series(tmp_path / "ct", HU, GRID, AcquisitionNumber=1, names=lambda k: f"{k}a", **UIDS)
    write_series(tmp_path / "ct", second, lower, AcquisitionNumber=2, names=lambda k: f"{k}b", **UIDS)
    found = find_series(tmp_path)
    assert found.refused == ()
    for series, hu in zip(found.series, (HU, second), strict=True):
        np.testing.assert_array_equal(read_series(series), hu)


@pytest.mark.parametrize("keyword", ["StackID", "FrameAcquisitionNumber", "TemporalPositionIndex"])
def test_frames_of_one_file_are_told_apart(tmp_path, keyword):
    both = np.concatenate([HU, np.clip(HU + 60, -1000, 1500)])
    order = [*range(12), *range(12)]
    enhanced(tmp_path / "all.dcm", np.concatenate([HU]), GRID, list(range(12)), True)
    data = pydicom.dcmread(tmp_path / "all.dcm")
    groups = []
    for n, k in enumerate(order):
        group, content = Dataset(), Dataset()
        group.PlanePositionSequence = data.PerFrameFunctionalGroupsSequence[k].PlanePositionSequence
        values = Dataset()
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = 1, -1024, "HU"
        group.PixelValueTransformationSequence = [values]
        setattr(content, keyword, str(1 + n // 12) if keyword == "StackID" else 1 + n // 12)
        group.FrameContentSequence = [content]
        groups.append(group)
    data.PerFrameFunctionalGroupsSequence, data.NumberOfFrames = groups, 24
    data.PixelData = (both + 1024).astype("<i2").tobytes()
    data.save_as(tmp_path / "all.dcm")
    found = find_series(tmp_path)
    assert found.refused == ()
    assert [s.part for s in found.series] == [1, 2]
    for series, hu in zip(found.series, (HU, both[12:]), strict=True):
        np.testing.assert_array_equal(read_series(series), hu)
