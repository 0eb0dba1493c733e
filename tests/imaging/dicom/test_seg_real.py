"""SEGs and a lymph-node scan that others made: dcmqi's, and TCIA 4D-Lung's patient 113."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from scipy import ndimage

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask, segments_mask
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.files import read_mask

pytestmark = pytest.mark.realdata

LABELS = {"lymph_node": 1, "GTVp": 2}


@pytest.fixture(scope="module")
def dcmqi(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("real_data") / "dcmqi"


@pytest.fixture(scope="module")
def lung(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("real_data") / "lung4d_113"


@pytest.fixture(scope="module")
def scan(lung) -> Series:
    return series_of(lung / "ct")


@pytest.fixture(scope="module")
def mask(lung, scan) -> np.ndarray:
    mask, grid = read_mask(lung / "label_full.nii.gz")
    assert grid.difference(scan.grid) is None
    return mask


def test_the_liver_is_its_nrrd_twin(dcmqi):
    series = series_of(dcmqi / "ct-3slice")
    segments = read_seg(dcmqi / "liver.dcm")
    twin, grid = read_mask(dcmqi / "liver_seg.nrrd")
    assert grid.difference(series.grid) is None
    assert (segments.names, segments.kind, segments.referenced_series_uids) == (("Liver",), "BINARY", (series.uid,))
    liver = segment_mask(segments, 1, series.grid, frame_of_reference_uid=series.frame_of_reference_uid)
    assert np.array_equal(liver, twin > 0)
    assert liver.sum() == 107098  # of the NRRD, by SimpleITK
    assert (segments.segments[0].type.value, segments.segments[0].algorithm_type) == ("T-62000", "SEMIAUTOMATIC")


def test_segments_that_overlap_are_those_that_highdicom_reads(dcmqi):
    series = series_of(dcmqi / "ct-3slice")
    segments = read_seg(dcmqi / "partial_overlaps.dcm")
    assert segments.names == ("GREEN", "ORANGE", "PURPLE", "LIGHT_BLUE", "DARK_BLUE")
    data = dcmread(dcmqi / "partial_overlaps.dcm")
    heights = [s.position_mm[2] for s in series.slices]
    total = np.zeros(series.grid.shape, int)
    for segment in segments.segments:
        by_pydicom = np.zeros(series.grid.shape, bool)
        for plane, own in zip(data.pixel_array, data.PerFrameFunctionalGroupsSequence, strict=True):
            if own.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment.number:
                height = float(own.PlanePositionSequence[0].ImagePositionPatient[2])
                by_pydicom[int(np.argmin(np.abs(np.array(heights) - height)))] = plane
        ours = segment_mask(segments, segment.number, series.grid)
        assert np.array_equal(ours, by_pydicom)
        volume = hd.seg.segread(dcmqi / "partial_overlaps.dcm").get_volume(
            segment_numbers=[segment.number], allow_missing_positions=True
        )
        assert volume.array.sum() == ours.sum()
        total += ours
    assert (total > 1).sum() > 0
    merged = segments_mask(segments, series.grid, ["*blue=blue", "*=rest"], {"blue": 1, "rest": 2})
    assert np.count_nonzero(merged) == np.count_nonzero(total)


def test_a_seg_does_not_go_onto_another_scan(dcmqi, scan):
    segments = read_seg(dcmqi / "liver.dcm")
    with pytest.raises(DicomError, match="frame of reference"):
        segment_mask(segments, 1, scan.grid, frame_of_reference_uid=scan.frame_of_reference_uid)
    with pytest.raises(DicomError, match="does not lie on the grid"):
        segment_mask(segments, 1, scan.grid)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_lymph_nodes_go_out_and_come_back(scan, mask, tmp_path, kind):
    write_seg(tmp_path / "a.dcm", mask, LABELS, scan, kind=kind)
    back = segments_mask(read_seg(tmp_path / "a.dcm"), scan.grid, ["lymph node=lymph_node", "gtvp=GTVp"], LABELS)
    assert np.array_equal(back, mask)
    assert np.count_nonzero(back == 1) == 2239
    volume = hd.seg.segread(tmp_path / "a.dcm").get_volume(combine_segments=True)
    assert np.count_nonzero(volume.array == 1) == 2239


def test_one_segment_a_node(scan, mask, tmp_path):
    nodes, count = ndimage.label(mask == 1, np.ones((3, 3, 3)))
    write_seg(tmp_path / "a.dcm", mask, LABELS, scan, instances=nodes, names={1: "LN 1 (station 7)"})
    back = read_seg(tmp_path / "a.dcm")
    assert back.names == ("LN 1 (station 7)", "lymph_node 2", "lymph_node 3", "GTVp")
    assert count == 3
    for number in (1, 2, 3):
        assert np.array_equal(segment_mask(back, number, scan.grid), nodes == number)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(scan, mask, tmp_path):
    nodes, _ = ndimage.label(mask == 1, np.ones((3, 3, 3)))
    write_seg(tmp_path / "labels.dcm", mask, LABELS, scan)
    write_seg(tmp_path / "nodes.dcm", mask, LABELS, scan, instances=nodes)
    write_seg(tmp_path / "empty.dcm", mask * 0, LABELS, scan)
    for path in tmp_path.glob("*.dcm"):
        checked = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stdout + checked.stderr, path.name
        assert "Segmentation" in checked.stdout + checked.stderr
