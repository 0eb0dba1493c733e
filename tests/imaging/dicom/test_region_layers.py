"""Regions that overlap, a whole and its core: each is a segment or structure of all its voxels."""

from __future__ import annotations

import highdicom as hd
import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.imaging.dicom import seg_write
from lnsegfm.imaging.dicom.dicom_errors import DicomError, EmptyStructureSet
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.segmentation import segment_mask
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import roi_mask
from lnsegfm.imaging.grid import Grid
from lnsegfm.prediction.writers.node_instances import number_nodes
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_rtstruct import read_alone
from tests.imaging.dicom.test_seg import by_pydicom, in_patient

TURNED = (1.0, 0.0, 0.0, 0.0, 0.8, -0.6, 0.0, 0.6, 0.8)
GRID = Grid((5, 9, 11), (2.5, 1.0, 1.5), (-12.5, 4.0, 100.0), TURNED)
KIDNEY = LabelMap.from_dataset_json({"background": 0, "kidney": [1, 2, 3], "masses": [2, 3], "tumour": 2}, [1, 3, 2])
REGIONS = dict(KIDNEY.regions)
MASKS = arrays(np.uint8, GRID.shape, elements=st.sampled_from([0, 0, 0, 1, 2, 3]))
SOME = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, np.zeros(GRID.shape, dtype=np.int16), GRID)
    return series_of(folder)


def nested() -> np.ndarray:
    """A kidney, in it masses, in these a tumour, and a second tumour apart."""
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1:4, 1:8, 1:7] = 1
    mask[1:3, 2:6, 2:6] = 3
    mask[2, 3:5, 3:5] = 2
    mask[4, 8, 9:11] = 2
    return mask


@SOME
@given(mask=MASKS)
def test_segments_overlap_as_regions_do(series, tmp_path, mask):
    path = tmp_path / "a.dcm"
    write_seg(path, mask, dict(KIDNEY.names), series, regions=REGIONS)
    back, other = read_seg(path), hd.seg.segread(path)
    assert list(back.names) == list(KIDNEY.names)
    for number, name in enumerate(KIDNEY.names, 1):
        expected = KIDNEY.voxels(mask, name)
        np.testing.assert_array_equal(segment_mask(back, number, series.grid), expected)
        np.testing.assert_array_equal(by_pydicom(path, number), in_patient(GRID, expected))
        if mask.any():
            volume = other.get_volume(segment_numbers=[number], combine_segments=True)
            assert int(np.count_nonzero(volume.array)) == int(expected.sum())


@SOME
@given(mask=MASKS)
def test_structures_overlap_as_regions_do(series, tmp_path, mask):
    path = tmp_path / "rs.dcm"
    if not mask.any():
        with pytest.raises(EmptyStructureSet):
            write_rtstruct(path, mask, dict(KIDNEY.names), series, regions=REGIONS)
        return
    written = write_rtstruct(path, mask, dict(KIDNEY.names), series, regions=REGIONS)
    ours, alone = {roi.name: roi for roi in read_rtstruct(path).rois}, read_alone(path, GRID)
    found = [name for name in KIDNEY.names if KIDNEY.voxels(mask, name).any()]
    assert list(ours) == list(alone) == found
    assert written.left_out == tuple(name for name in KIDNEY.names if name not in found)
    for name in found:
        np.testing.assert_array_equal(roi_mask(ours[name], GRID), KIDNEY.voxels(mask, name))
        np.testing.assert_array_equal(alone[name], KIDNEY.voxels(mask, name))
    colours = [tuple(item.ROIDisplayColor) for item in pydicom.dcmread(path).ROIContourSequence]
    assert len(set(colours)) == len(colours)


def test_one_structure_and_one_segment_a_node_of_each_region(series, tmp_path):
    mask = nested()
    instances, names = number_nodes(mask, KIDNEY)
    assert instances.shape == (3, *GRID.shape)
    expected = {"kidney 1": mask[:4] > 0, "masses 1": np.isin(mask[:4], (2, 3)), "tumour 1": mask[:4] == 2}
    write_rtstruct(
        tmp_path / "rs.dcm", mask, dict(KIDNEY.names), series, instances=instances, names=names, regions=REGIONS
    )
    write_seg(tmp_path / "a.dcm", mask, dict(KIDNEY.names), series, instances=instances, names=names, regions=REGIONS)
    rois = {roi.name: roi_mask(roi, GRID) for roi in read_rtstruct(tmp_path / "rs.dcm").rois}
    back = read_seg(tmp_path / "a.dcm")
    assert list(rois) == list(back.names) == [f"{name} {n}" for name in KIDNEY.names for n in (1, 2)]
    for number, name in enumerate(back.names, 1):
        np.testing.assert_array_equal(segment_mask(back, number, GRID), rois[name])
        if name in expected:
            np.testing.assert_array_equal(rois[name][:4], expected[name])
        else:
            np.testing.assert_array_equal(rois[name], (mask == 2) & (np.arange(5) == 4)[:, None, None])


def test_regions_are_added_to_a_structure_set(series, tmp_path):
    mask, old = nested(), tmp_path / "old.dcm"
    write_rtstruct(old, (mask == 3).astype(np.uint8), {"kidney": 1}, series)
    write_rtstruct(
        tmp_path / "new.dcm", mask, dict(KIDNEY.names), series, regions=REGIONS, options=RtstructOptions(add_to=old)
    )
    rois = read_rtstruct(tmp_path / "new.dcm").rois
    assert len({roi.number for roi in rois}) == len({roi.name for roi in rois}) == 4
    np.testing.assert_array_equal(roi_mask(rois[0], GRID), mask == 3)
    for roi, name in zip(rois[1:], KIDNEY.names, strict=True):
        np.testing.assert_array_equal(roi_mask(roi, GRID), KIDNEY.voxels(mask, name))


def test_a_segment_that_does_not_come_back_is_not_put_in_place(series, tmp_path, monkeypatch):
    kept = seg_write.encode
    monkeypatch.setattr(seg_write, "encode", lambda layers, *rest: kept([*layers[:2], layers[2] * 0], *rest))
    with pytest.raises(DicomError, match="6 voxels of the segmentation differ when it is read back"):
        write_seg(tmp_path / "a.dcm", nested(), dict(KIDNEY.names), series, regions=REGIONS)
    assert not (tmp_path / "a.dcm").exists()


def test_what_cannot_be_is_refused(series, tmp_path):
    mask, labels = nested(), dict(KIDNEY.names)
    for words, more in (
        ("LABELMAP: regions may overlap", {"regions": REGIONS, "kind": "LABELMAP"}),
        ("Regions kidney: the labels are", {"regions": {"kidney": (1, 2, 3)}}),
        ("Mask value 1: no region covers it", {"regions": REGIONS | {"kidney": (2, 3)}}),
        (r"Instances \(5, 9, 11\)", {"regions": REGIONS, "instances": mask}),
    ):
        with pytest.raises(DicomError, match=words):
            write_seg(tmp_path / "a.dcm", mask, labels, series, **more)
        assert not (tmp_path / "a.dcm").exists()
