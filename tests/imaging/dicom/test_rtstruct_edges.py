"""Structure sets at the edge: contours at the limit of each rule, and what the check before writing must see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from lnsegfm.imaging.dicom import rtstruct_contours
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import roi_mask, structures_mask
from lnsegfm.imaging.dicom.structure_set import Contour, Roi, StructureSet, mismatch
from lnsegfm.imaging.dicom.values import quiet
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_rtstruct import GRIDS

GRID = Grid((6, 20, 30), (3.0, 0.8, 0.7), (-10.0, 5.0, 100.0))
MASK = np.zeros(GRID.shape, np.uint8)
MASK[1:4, 3:9, 12:25], MASK[2, 5, 14], MASK[4, 0, 0] = 1, 0, 2


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, np.zeros(GRID.shape, int), GRID)
    return series_of(folder)


def square(z: float, x: float = 5.0, side: float = 4.0, grid: Grid = GRID) -> Contour:
    """From the corner of voxel (x, x); its sides run between voxels."""
    return polygon([(x, x, z), (x + side, x, z), (x + side, x + side, z), (x, x + side, z)], -0.5, grid)


def polygon(points: list[tuple[float, float, float]], shift: float = 0.0, grid: Grid = GRID) -> Contour:
    """Points as (column, row, slice)."""
    index = np.add(points, (shift, shift, 0))
    axes = np.array(grid.direction).reshape(3, 3)
    return Contour(np.array(grid.origin_mm) + index * grid.spacing_mm[::-1] @ axes.T)


def slices(*contours: Contour) -> dict[int, int]:
    """Voxels by slice."""
    mask = roi_mask(Roi(1, "node", contours), GRID)
    return {int(k): int(mask[k].sum()) for k in np.flatnonzero(mask.any((1, 2)))}


# -------------------------------------------------------------------------------------------------- reading


def test_contours_of_one_plane_and_of_two():
    assert slices(square(3.0), square(3.04, 6, 2)) == {3: 12}  # a hole, drawn a little off
    assert slices(square(3.0), square(3.2, 6, 2)) == {3: 16}  # another plane, of which this tells nothing


def test_planes_close_to_each_other_on_both_sides_of_the_middle_between_slices():
    assert slices(square(2.48), square(2.52)) == {2: 16, 3: 16}


def test_how_far_a_contour_may_leave_its_plane():
    assert slices(polygon([(5, 5, 2.96), (9, 5, 3.04), (9, 9, 3.04), (5, 9, 2.96)], -0.5)) == {3: 16}
    with pytest.raises(DicomError, match=r"1 of 1 contours are not parallel to the slices \(they cross up to 0\.3"):
        slices(polygon([(5, 5, 2.85), (9, 5, 3.15), (9, 9, 3.15), (5, 9, 2.85)], -0.5))


@pytest.mark.parametrize("name", GRIDS)
def test_corners_at_voxel_centres_are_inside_on_the_lower_sides_in_every_orientation(name):
    grid = GRIDS[name]
    for first, side in ((3, 4), (7, 5), (11, 9)):
        corners = [(first, first, 2), (first + side, first, 2), (first + side, first + side, 2),
                   (first, first + side, 2)]  # fmt: skip
        expected = np.zeros(grid.shape, bool)
        expected[2, first : first + side, first : first + side] = True
        assert np.array_equal(roi_mask(Roi(1, "node", (polygon(corners, 0, grid),)), grid), expected)


def test_the_voxels_that_several_structures_of_a_label_share_are_added_up():
    rois = (Roi(1, "GTV", (square(3, 5, 8),)), Roi(2, "LN 1", (square(3, 5, 2),)), Roi(3, "LN 2", (square(3, 11, 4),)))
    told: list[str] = []
    structures_mask(StructureSet("", (), rois), GRID, ["GTV=gtv", "LN*=ln"], {"ln": 1, "gtv": 2}, on_note=told.append)
    assert told == ["8 voxels are in gtv and in ln: given to gtv."]


def test_labels_left_out_of_the_priority_come_after_it():
    rois = tuple(Roi(n, name, (square(3),)) for n, name in enumerate("abc"))
    patterns, labels = ["a=a", "b=b", "c=c"], {"a": 1, "b": 2, "c": 3}
    for priority, first in ((["c"], 3), (["c", "a"], 3), (["b", "c", "b"], 2), ([], 1), (None, 1)):
        mask = structures_mask(StructureSet("", (), rois), GRID, patterns, labels, priority=priority)
        assert set(np.unique(mask)) == {0, first}


def test_structures_without_contours_do_not_say_where_the_others_lie(ct):
    empty = Roi(1, "empty", (), ct.frame_of_reference_uid)
    drawn = Roi(2, "node", (square(3),), "1.1")
    assert "frame of reference 1.1" in str(mismatch(StructureSet("", (ct.uid,), (empty, drawn)), ct))
    with pytest.raises(DicomError, match=r"frame of reference 1\.1 is not the series'"):
        structures_mask(StructureSet("", (), (empty, drawn)), GRID, ["node=a"], {"a": 1},
                        frame_of_reference_uid=ct.frame_of_reference_uid)  # fmt: skip


@pytest.fixture
def changed(ct: Series, tmp_path: Path) -> Callable[[Callable[[Dataset], None]], StructureSet]:
    def make(change: Callable[[Dataset], None]) -> StructureSet:
        write_rtstruct(tmp_path / "rs.dcm", MASK, {"a": 1, "b": 2}, ct)
        data = pydicom.dcmread(tmp_path / "rs.dcm")
        change(data)
        data.save_as(tmp_path / "rs.dcm")
        return read_rtstruct(tmp_path / "rs.dcm")

    return make


@pytest.mark.parametrize(
    ("kind", "damaged"), [("CLOSED_PLANAR", True), ("CLOSEDPLANAR_XOR", True), ("", True), ("POINT", False)]
)
def test_damage_counts_where_a_contour_may_enclose_something(changed, kind, damaged):
    def change(data: Dataset) -> None:
        contour = data.ROIContourSequence[0].ContourSequence[0]
        contour.ContourGeometricType = kind
        contour.add(pydicom.DataElement("ContourData", "DS", "1\\2\\3\\4", already_converted=True))

    assert bool(changed(change).rois[0].damage) == damaged


def test_the_frame_of_reference_of_the_structures_goes_before_that_of_the_file(changed, ct):
    def change(data: Dataset) -> None:
        data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = data.FrameOfReferenceUID = "1.1"

    structures = changed(change)
    assert structures.frame_of_reference_uid == ct.frame_of_reference_uid
    assert mismatch(structures, ct) is None


def test_several_frames_of_reference_are_told_where_no_structure_says_its_own(changed):
    def several(data: Dataset) -> None:
        other = Dataset()
        other.FrameOfReferenceUID = "1.1"
        data.ReferencedFrameOfReferenceSequence.append(other)

    def nameless(data: Dataset) -> None:
        several(data)
        for item in data.StructureSetROISequence:
            item.ReferencedFrameOfReferenceUID = ""

    assert changed(several).notes == ()
    assert changed(nameless).notes == ("Structures of 2 frames of reference, and none says which is its own.",)


# -------------------------------------------------------------------------------------------------- writing


def refused(path: Path, message: str, mask: np.ndarray, labels: dict[str, int], series: Series, **more) -> None:
    with pytest.raises(DicomError, match=message):
        write_rtstruct(path / "rs.dcm", mask, labels, series, **more)
    assert list(path.iterdir()) == []


def test_what_comes_back_otherwise_is_not_put_in_place(ct, tmp_path, monkeypatch):
    labels = {"a": 1, "b": 2}
    # blanks at an end are lost in DICOM
    refused(tmp_path, "structure 'b ' is not there", MASK, {"a": 1, "b ": 2}, ct)
    with quiet():
        spaced = replace(ct, frame_of_reference_uid="1.2 ")
        refused(tmp_path, "read back, its contours are in frame", MASK, labels, spaced)
    monkeypatch.setattr(rtstruct_contours, "trace_outlines", lambda _: [])
    count = np.count_nonzero(MASK == 1)
    refused(tmp_path, f"{count} voxels of structure 'a' differ", MASK, labels, ct)
    monkeypatch.undo()
    honest, beside = rtstruct_contours.trace_outlines, np.array([(-9, -3), (-7, -3), (-7, -1), (-9, -1)]) - 0.5
    monkeypatch.setattr(rtstruct_contours, "trace_outlines", lambda plane: [*honest(plane), beside])
    refused(tmp_path, r"voxels of structure '.' differ", MASK, labels, ct)


def test_masks_and_sources_that_do_not_fit(ct, tmp_path):
    labels = {"a": 1, "b": 2}
    turned = np.ascontiguousarray(MASK.transpose(0, 2, 1))
    refused(tmp_path, "Mask of 6x30x20 voxels", turned, labels, ct)
    refused(tmp_path, "Instances of 6x30x20 voxels", MASK, labels, ct, instances=turned)
    refused(tmp_path, "Values 0 to 70000", MASK.astype(np.int32) * 70000 // 2, labels, ct)
    two = np.where(MASK > 0, 3, 0)
    refused(tmp_path, r"Instance 3: it covers mask values \[1, 2\]", MASK, labels, ct, instances=two)
    refused(tmp_path, r"Instance 1: it covers mask values \[0\]", MASK, labels, ct, instances=np.uint8(MASK == 0))
    unnamed = (*ct.slices[:3], replace(ct.slices[3], sop_instance_uid=""), *ct.slices[4:])
    refused(tmp_path, "no SOPInstanceUID of every slice", MASK, labels, replace(ct, slices=unnamed))
    x, y, z = ct.slices[3].position_mm
    off = (*ct.slices[:3], replace(ct.slices[3], position_mm=(x, y, z + 0.4)), *ct.slices[4:])
    refused(tmp_path, r"slice 4 is 0\.4 mm from its plane", MASK, labels, replace(ct, slices=off))


def test_who_the_patient_is_comes_from_the_first_slice(tmp_path):
    names = ["First^One", "Second^One", "Third^One"]
    write_series(tmp_path / "ct", np.zeros((3, 4, 5), int), Grid((3, 4, 5), (3, 1, 1)),
                 change=lambda data, k: setattr(data, "PatientName", names[k]))  # fmt: skip
    write_rtstruct(tmp_path / "rs.dcm", np.ones((3, 4, 5), np.uint8), {"a": 1}, series_of(tmp_path / "ct"))
    assert pydicom.dcmread(tmp_path / "rs.dcm").PatientName == "First^One"


def test_coordinates_are_those_of_the_voxel_edges_to_a_nanometre(ct, tmp_path):
    mask = np.zeros(GRID.shape, bool)
    mask[3, 7, 11] = True
    write_rtstruct(tmp_path / "rs.dcm", mask, {"a": 1}, ct)
    points = read_rtstruct(tmp_path / "rs.dcm").rois[0].contours[0].points_mm
    edges = {(x, y) for x in (-10 + 10.5 * 0.7, -10 + 11.5 * 0.7) for y in (5 + 6.5 * 0.8, 5 + 7.5 * 0.8)}
    assert {(round(x, 6), round(y, 6)) for x, y, _ in points.tolist()} == {(round(x, 6), round(y, 6)) for x, y in edges}
    assert set(points[:, 2]) == {109.0}
