from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pydicom.dataset import Dataset
from skimage.draw import polygon2mask

from lnsegfm.imaging.dicom import rtstruct_contours
from lnsegfm.imaging.dicom.dicom_errors import DicomError, EmptyStructureSet
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import Contour, Roi, StructureSet, roi_mask, structures_mask
from lnsegfm.imaging.dicom.structure_set import mismatch, note_on_other_series
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

SHAPE = (12, 44, 60)
LABELS = {"background": 0, "lymph_node": 1, "tumour": 2}


def turned(row: tuple[float, ...], column: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.stack((row, column, np.cross(row, column)), axis=1).ravel())


COS, SIN = math.cos(math.radians(15)), math.sin(math.radians(15))
GRIDS = {
    "axial": Grid(SHAPE, (3.0, 0.9766, 0.9766), (-250.0, -163.019, -1132.0)),
    "sagittal": Grid(SHAPE, (3.0, 0.9766, 0.9766), (31.7, -120.3, 44.4), turned((0, 1, 0), (0, 0, -1))),
    "negated in the plane": Grid(SHAPE, (3.0, 0.9766, 0.9766), (200.1, 150.2, -33.3), turned((-1, 0, 0), (0, -1, 0))),
    "negated across": Grid(SHAPE, (2.5, 0.7, 0.8), (-200.1, 150.2, 333.3), turned((1, 0, 0), (0, -1, 0))),
    "oblique": Grid(
        SHAPE, (3.0, 0.9766, 0.9766), (-71.234, 12.345, -456.7), turned((COS, 0, -SIN), (SIN * SIN, COS, SIN * COS))
    ),
    "anisotropic": Grid((8, 60, 80), (5.0, 0.5, 0.5), (-20.0, -20.0, 12.5)),
}
PLAIN = GRIDS["axial"]


def scanned(folder: Path, grid: Grid) -> Series:
    """A series whose files tell their order neither by name nor by number."""
    shuffled = np.random.default_rng(0).permutation(grid.shape[0])
    hu = np.zeros((grid.shape[0], 2, 2), dtype=np.int16)  # the picture does not matter, its size does

    def change(data: Dataset, _: int) -> None:
        data.Rows, data.Columns = grid.shape[1:]
        data.PixelData = b"\0\0" * (grid.shape[1] * grid.shape[2])

    write_series(folder, hu, grid, names=lambda k: f"{shuffled[k]}", order=[int(n) for n in shuffled], change=change)
    return series_of(folder)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Series]:
    made: dict[str, Series] = {}

    def of(name: str) -> Series:
        if name not in made:
            made[name] = scanned(tmp_path_factory.mktemp("series"), GRIDS[name])
        return made[name]

    return of


def ball(grid: Grid, centre: tuple[float, float, float], diameter_mm: float) -> np.ndarray:
    steps = (np.stack(np.mgrid[tuple(slice(n) for n in grid.shape)], axis=-1) - centre) * grid.spacing_mm
    return np.sum(steps**2, axis=-1) <= (diameter_mm / 2) ** 2


def nodes(grid: Grid) -> np.ndarray:
    """Nodes of 3 to 20 mm, a hollow one, one voxel, at borders, touching at a side, an edge and a corner."""
    depth, rows, columns = grid.shape
    mask = np.zeros(grid.shape, dtype=np.uint8)
    for diameter, y, x in ((20, 0.27, 0.2), (10, 0.8, 0.1), (8, 0.75, 0.35), (5, 0.1, 0.55), (3, 0.9, 0.7)):
        mask[ball(grid, (depth / 2 + 0.1, y * rows, x * columns), diameter)] = 1
    mask[depth // 2, int(0.27 * rows) - 1 : int(0.27 * rows) + 1, int(0.2 * columns) - 2 : int(0.2 * columns)] = 0
    mask[2:6, 12:18, -18:-10], mask[3:5, 14:16, -16:-12] = 1, 0
    mask[2:6, 12:18, -10:-6] = 2
    mask[6, 18, -19] = mask[6, 18, -6] = mask[6, 19, -7] = 1
    mask[0, 0, 0] = mask[-1, -1, -1] = mask[-1, 0, -3] = 1
    mask[:2, -3:, :4] = 2
    return mask


def read_alone(path: Path, grid: Grid) -> dict[str, np.ndarray]:
    """The file read by pydicom, SimpleITK's geometry and scikit-image's polygons, with nothing of ours."""
    image = sitk.Image(*reversed(grid.shape), sitk.sitkUInt8)
    image.SetSpacing(grid.spacing_mm[::-1])
    image.SetOrigin(grid.origin_mm)
    image.SetDirection(grid.direction)
    data = pydicom.dcmread(path)
    names = {item.ROINumber: item.ROIName for item in data.StructureSetROISequence}
    masks = {name: np.zeros(grid.shape, dtype=bool) for name in names.values()}
    for item in data.ROIContourSequence:
        for contour in item.get("ContourSequence", []):
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            index = np.array([image.TransformPhysicalPointToContinuousIndex(p) for p in points.tolist()])
            k = round(float(index[:, 2].mean()))
            masks[names[item.ReferencedROINumber]][k] ^= polygon2mask(grid.shape[1:], index[:, 1::-1])
    return masks


@pytest.mark.parametrize("name", GRIDS)
def test_a_mask_comes_back_to_the_voxel_in_every_orientation(name: str, series: Any, tmp_path: Path) -> None:
    source = series(name)
    assert source.grid.difference(GRIDS[name]) is None
    mask = nodes(source.grid)

    write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source)

    told: list[str] = []
    structures = read_rtstruct(tmp_path / "rs.dcm")
    patterns = ["lymph_node=lymph_node", "tumour=tumour"]
    read = structures_mask(structures, source.grid, patterns, LABELS, on_note=told.append)
    assert np.count_nonzero(read != mask) == 0
    assert (told, structures.notes, mismatch(structures, source)) == ([], (), None)
    alone = read_alone(tmp_path / "rs.dcm", source.grid)
    assert np.array_equal(alone["lymph_node"], mask == 1)
    assert np.array_equal(alone["tumour"], mask == 2)


@pytest.mark.parametrize("name", GRIDS)
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
def test_any_mask_comes_back(name: str, series: Any, tmp_path: Path, drawn: st.DataObject) -> None:
    source = series(name)
    mask = np.zeros(source.grid.shape, dtype=np.uint8)
    part = drawn.draw(arrays(np.uint8, (3, 5, 6), elements=st.integers(0, 2)).filter(np.any))
    z, y, x = (drawn.draw(st.integers(0, n - m)) for n, m in zip(mask.shape, part.shape, strict=True))
    mask[z : z + 3, y : y + 5, x : x + 6] = part

    write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source)

    read, patterns = read_rtstruct(tmp_path / "rs.dcm"), ["lymph_node=a", "tumour=b"]
    assert np.array_equal(structures_mask(read, source.grid, patterns, {"a": 1, "b": 2}, strict=False), mask)


@pytest.mark.parametrize("diameter", [3, 5, 8, 10, 20])
@pytest.mark.parametrize("name", GRIDS)
def test_polygons_enclose_the_masks_volume(name: str, diameter: float, series: Any, tmp_path: Path) -> None:
    source = series(name)
    depth, rows, columns = source.grid.shape
    node = ball(source.grid, (depth / 2, rows / 2 + 0.3, columns / 2), diameter)
    write_rtstruct(tmp_path / "rs.dcm", node, {"node": 1}, source)

    volume_mm3 = 0.0
    for contour in read_rtstruct(tmp_path / "rs.dcm").rois[0].contours:
        arms = contour.points_mm - contour.points_mm[0]
        crosses = np.cross(arms[1:-1], arms[2:]).sum(axis=0)
        volume_mm3 += float(np.linalg.norm(crosses)) / 2 * source.grid.spacing_mm[0]

    assert volume_mm3 / 1000 == pytest.approx(node.sum() * source.grid.voxel_volume_ml, rel=1e-5)


@pytest.mark.parametrize("name", GRIDS)
def test_a_drawn_circle_holds_the_voxels_whose_centres_lie_inside(name: str) -> None:
    grid = GRIDS[name]
    across, down, normal = np.array(grid.direction).reshape(3, 3).T
    depth, rows, columns = grid.shape
    centre_mm = np.array([columns / 2 * grid.spacing_mm[2] + 0.217, rows / 2 * grid.spacing_mm[1] - 0.341])
    angle = np.linspace(0, 2 * np.pi, 20000, endpoint=False)
    for k, radius_mm in ((0, 1.5), (2, 2.5), (3, 4.1), (depth - 1, 9.9)):
        circle = centre_mm[:, None] + radius_mm * np.stack((np.cos(angle), np.sin(angle)))
        points = grid.origin_mm + np.outer(circle[0], across) + np.outer(circle[1], down)
        points = points + normal * k * grid.spacing_mm[0]
        y, x = np.mgrid[:rows, :columns] * np.array(grid.spacing_mm[1:])[:, None, None]
        expected = np.zeros(grid.shape, dtype=bool)
        expected[k] = np.hypot(x - centre_mm[0], y - centre_mm[1]) < radius_mm

        assert np.array_equal(roi_mask(Roi(1, "circle", (Contour(points.round(4)),)), grid), expected)


def square(z: float, x: float = 5.0, y: float = 5.0, side: float = 4.0) -> Contour:
    """A square of side x side voxels from voxel (y, x), at slice z of ``PLAIN``."""
    corners = np.array([(x, y), (x + side, y), (x + side, y + side), (x, y + side)]) - 0.5
    index = np.column_stack((corners, np.full(4, z)))
    return Contour(np.array(PLAIN.origin_mm) + index * PLAIN.spacing_mm[::-1])


def read(*contours: Contour) -> tuple[np.ndarray, list[str]]:
    told: list[str] = []
    return roi_mask(Roi(1, "node", contours), PLAIN, on_note=told.append), told


def test_contours_between_slices_go_to_the_nearest_and_are_told() -> None:
    mask, told = read(square(2.0), square(3.3), square(4.49), square(6.5))

    assert list(np.flatnonzero(mask.any(axis=(1, 2)))) == [2, 3, 4, 7]
    assert told == ["Structure 'node': 3 of 4 contours lie between slices (up to 0.50 slice distances off): "
                    "read at the nearest slice.",
                    "Structure 'node': slices 6, 7 are skipped between contoured slices."]  # fmt: skip


def test_contours_beyond_half_a_slice_distance_of_the_series_are_told() -> None:
    mask, told = read(square(-0.6), square(-0.5), square(11.5), square(11.6))

    assert list(np.flatnonzero(mask.any(axis=(1, 2)))) == [0, 11]
    assert "2 of 4 contours lie above or below the series" in told[0]


def test_on_one_slice_the_nearest_plane_counts_and_farther_ones_add_what_nothing_touches() -> None:
    wide, other = square(3.3, side=6), square(3.3, x=30)
    mask, _ = read(wide, square(3.0), other, square(2.7, side=7))

    assert mask.sum() == mask[3].sum() == 16 + 16
    assert mask[3, 5:9, 5:9].all()
    assert mask[3, 5:9, 30:34].all()


def test_holes_are_left_out_and_islands_in_holes_are_not() -> None:
    mask, told = read(square(3, side=9), square(3, 6, 6, 7), square(3, 8, 8, 3))

    assert (mask.sum(), told) == (81 - 49 + 9, [])


def test_a_contour_exported_twice_counts_once() -> None:
    mask, told = read(square(3), square(3))

    assert mask.sum() == 16
    assert told == ["Structure 'node': 1 of 2 contours are exact repetitions: passed over."]


def test_what_encloses_nothing_is_passed_over_and_told() -> None:
    closed = square(3)
    point, line = Contour(closed.points_mm[:1], "POINT"), Contour(closed.points_mm, "OPEN_PLANAR")
    mask, told = read(closed, point, line, Contour(closed.points_mm[:2]), Contour(closed.points_mm[:1]))

    assert mask.sum() == 16
    assert told == [
        "Structure 'node': 1 of 5 contours are points: passed over.",
        "Structure 'node': 1 of 5 contours are of type OPEN_PLANAR: passed over.",
        "Structure 'node': 2 of 5 contours are of fewer than three points: passed over.",
    ]
    assert read(point)[0].sum() == 0


def test_contours_across_the_slices_are_refused() -> None:
    upright = Contour(square(3).points_mm[:, [2, 1, 0]] * (0.01, 1, 0.1) + PLAIN.origin_mm)
    with pytest.raises(DicomError, match="2 contours are not parallel to the slices") as refused:
        read(square(3), upright)

    assert len(refused.value.problems) == 1


def test_contours_beside_the_image_are_cut_and_those_of_another_place_refused() -> None:
    mask, _ = read(square(3, x=-2))
    assert mask.sum() == 8

    mask, told = read(square(3, x=-20))
    reason = "Structure 'node' has no voxel: its contours lie outside the image, to its side."
    assert (mask.sum(), told) == (0, [reason])

    with pytest.raises(DicomError, match=r"at slices 41\.0 to 42\.0 of a series that has 1 to 12"):
        read(square(40), square(41))


def test_overlaps_go_to_the_first_pattern_or_by_priority_and_are_told() -> None:
    structures = StructureSet("", (), (Roi(1, "LN", (square(3),)), Roi(2, "GTV", (square(3, x=7),))))
    labels, patterns, told = {"ln": 1, "gtv": 2}, ["GTV=gtv", "LN=ln"], list[str]()

    mask = structures_mask(structures, PLAIN, patterns, labels, on_note=told.append)
    assert [np.count_nonzero(mask == v) for v in (1, 2)] == [8, 16]
    assert told == ["8 voxels are in gtv and in ln: given to gtv."]

    mask = structures_mask(structures, PLAIN, patterns, labels, priority=["ln"])
    assert [np.count_nonzero(mask == v) for v in (1, 2)] == [16, 8]

    mask = structures_mask(structures, PLAIN, ["*=ln"], labels, on_note=told.append)
    assert (np.count_nonzero(mask), len(told)) == (24, 1)


def test_labels_and_priorities_must_be_known() -> None:
    structures = StructureSet("1.2", (), (Roi(1, "LN", (square(3),), "1.2"),))
    with pytest.raises(DicomError, match="Label other: it has no value"):
        structures_mask(structures, PLAIN, ["LN=other"], {"ln": 1})
    with pytest.raises(DicomError, match="Priority gtv: no label"):
        structures_mask(structures, PLAIN, ["LN=ln"], {"ln": 1}, priority=["gtv"])
    with pytest.raises(DicomError, match=r"frame of reference 1\.2 is not the series' 9\.9"):
        structures_mask(structures, PLAIN, ["LN=ln"], {"ln": 1}, frame_of_reference_uid="9.9")


def test_a_structure_set_belongs_to_series_of_its_frame_of_reference(series: Any) -> None:
    ours = series("axial")
    roi = Roi(1, "LN", (square(3),))

    assert mismatch(StructureSet(ours.frame_of_reference_uid, ("1.2",), (roi,)), ours) is None
    assert "frame of reference 1.2.3" in str(mismatch(StructureSet("1.2.3", (ours.uid,), (roi,)), ours))
    assert mismatch(StructureSet("", (ours.uid,), (roi,)), ours) is None
    assert "names 1.2" in str(mismatch(StructureSet("", ("1.2",), (roi,)), ours))
    assert "drawn on series 1.2" in str(note_on_other_series(StructureSet("", ("1.2",), (roi,)), ours))
    assert note_on_other_series(StructureSet("", (ours.uid,), (roi,)), ours) is None


def numbered(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return ndimage.label(mask == 1, np.ones((3, 3, 3)))[0]


def test_one_structure_a_node_and_what_is_left_of_a_label(series: Any, tmp_path: Path) -> None:
    source = series("oblique")
    mask = nodes(source.grid)
    instances = numbered(mask)
    instances[instances == 2] = 0
    names = {1: "node 1, 20 mm"}

    write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source, instances=instances, names=names)

    structures = read_rtstruct(tmp_path / "rs.dcm")
    by_name = {roi.name: roi_mask(roi, source.grid) for roi in structures.rois}
    assert set(structures.names) == (
        {"node 1, 20 mm", "lymph_node", "tumour"} | {f"lymph_node_{n}" for n in range(3, instances.max() + 1)}
    )
    assert np.array_equal(by_name["node 1, 20 mm"], instances == 1)
    assert np.array_equal(by_name["lymph_node"], (mask == 1) & (instances == 0))
    assert sum(m.astype(int) for m in by_name.values()).max() == 1

    write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source, instances=numbered(mask))
    assert "lymph_node" not in read_rtstruct(tmp_path / "rs.dcm").names


def test_a_label_without_a_voxel_has_no_structure(series: Any, tmp_path: Path) -> None:
    """Readers fail on a structure without contours: rt-utils 1.2.7 where the sequence is absent (its issue 67)."""
    source = series("axial")
    mask = (nodes(source.grid) == 2).astype(np.uint8) * 2
    written = write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source)

    assert read_rtstruct(tmp_path / "rs.dcm").names == ("tumour",)
    assert [
        (item.ROINumber, item.ROIName) for item in pydicom.dcmread(tmp_path / "rs.dcm").StructureSetROISequence
    ] == [(1, "tumour")]
    assert (written.left_out, written.notes) == (
        ("lymph_node",),
        ("Nothing was found of 'lymph_node': it has no structure.",),
    )


def test_of_a_mask_without_a_voxel_no_structure_set_is_written(series: Any, tmp_path: Path) -> None:
    source = series("axial")
    with pytest.raises(EmptyStructureSet, match="Nothing was found of 'lymph_node', 'tumour'"):
        write_rtstruct(tmp_path / "rs.dcm", np.zeros(source.grid.shape, np.uint8), LABELS, source)
    assert not list(tmp_path.iterdir())


def test_the_file_says_whose_it_is_what_it_refers_to_and_what_it_is_not_for(series: Any, tmp_path: Path) -> None:
    source = series("negated across")
    mask = nodes(source.grid)
    write_rtstruct(tmp_path / "rs.dcm", mask, LABELS, source, description="Model m1.", algorithm="lnsegfm m1")

    data = pydicom.dcmread(tmp_path / "rs.dcm")
    assert (data.PatientID, str(data.PatientName), data.PatientBirthDate) == ("P1", "Doe^Jane", "19700101")
    assert (data.StudyInstanceUID, data.StudyDate) == (source.study_uid, "20200102")
    assert data.SeriesInstanceUID != source.uid
    assert data.StructureSetDescription == "Not for clinical use. Model m1."
    assert (data.Manufacturer, data.ApprovalStatus) == ("lnsegfm", "UNAPPROVED")
    assert (data.SeriesNumber, data.InstanceNumber) == (2003, 1)  # the source's is 3
    assert data.SoftwareVersions
    of_series = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert of_series.SeriesInstanceUID == source.uid
    assert [i.ReferencedSOPInstanceUID for i in of_series.ContourImageSequence] == [
        s.sop_instance_uid for s in source.slices
    ]
    assert {r.ROIGenerationAlgorithm for r in data.StructureSetROISequence} == {"AUTOMATIC"}
    assert [(o.RTROIInterpretedType, o.ROIObservationLabel) for o in data.RTROIObservationsSequence] == [
        ("ORGAN", "lymph_node"),
        ("ORGAN", "tumour"),
    ]
    assert len({tuple(item.ROIDisplayColor) for item in data.ROIContourSequence}) == 2
    places = {s.sop_instance_uid: s.position_mm for s in source.slices}
    for contour in (c for item in data.ROIContourSequence for c in item.ContourSequence):
        points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
        assert (contour.ContourGeometricType, contour.NumberOfContourPoints) == ("CLOSED_PLANAR", len(points))
        slice_z = places[contour.ContourImageSequence[0].ReferencedSOPInstanceUID][2]
        assert np.allclose(points[:, 2], slice_z, atol=1e-6)
        assert all(len(str(word)) <= 16 for word in contour.ContourData)


def test_what_is_known_of_the_patient_is_kept_in_every_script(tmp_path: Path) -> None:
    folder = tmp_path / "ct"
    write_series(folder, np.zeros((3, 5, 5), np.int16), Grid((3, 5, 5), (3, 1, 1)),
                 SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg", PatientSex=None)  # fmt: skip
    mask = np.ones((3, 5, 5), np.uint8)
    write_rtstruct(tmp_path / "rs.dcm", mask, {"Lymphknoten, groß": 1}, series_of(folder))

    data = pydicom.dcmread(tmp_path / "rs.dcm")
    assert (str(data.PatientName), data.PatientSex) == ("Müller^Jörg", "")
    assert read_rtstruct(tmp_path / "rs.dcm").names == ("Lymphknoten, groß",)


def test_slices_of_a_multi_frame_file_are_referred_to_by_frame(series: Any, tmp_path: Path) -> None:
    source = series("axial")
    first = source.slices[0]
    frames = tuple(
        replace(each, frame=k, sop_instance_uid=first.sop_instance_uid) for k, each in enumerate(source.slices)
    )
    mask = np.zeros(source.grid.shape, np.uint8)
    mask[4, 5, 6] = 1
    write_rtstruct(tmp_path / "rs.dcm", mask, {"node": 1}, replace(source, slices=frames))

    data = pydicom.dcmread(tmp_path / "rs.dcm")
    of_series = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert len(of_series.ContourImageSequence) == 1
    image = data.ROIContourSequence[0].ContourSequence[0].ContourImageSequence[0]
    assert (image.ReferencedSOPInstanceUID, image.ReferencedFrameNumber) == (first.sop_instance_uid, 5)


def test_contours_lie_on_slices_that_are_a_little_off_their_place(series: Any, tmp_path: Path) -> None:
    source = series("oblique")
    normal = np.array(source.grid.direction).reshape(3, 3)[:, 2]
    moved = tuple(
        replace(s, position_mm=tuple(np.array(s.position_mm) + normal * 0.1 * (-1) ** k))
        for k, s in enumerate(source.slices)
    )
    write_rtstruct(tmp_path / "rs.dcm", nodes(source.grid), LABELS, replace(source, slices=moved))

    places = {s.sop_instance_uid: np.array(s.position_mm) for s in moved}
    for item in pydicom.dcmread(tmp_path / "rs.dcm").ROIContourSequence:
        for contour in item.ContourSequence:
            points = np.array(contour.ContourData, dtype=float).reshape(-1, 3)
            place = places[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            assert np.abs((points - place) @ normal).max() < 2e-6


def test_the_same_seed_and_time_give_the_same_file(series: Any, tmp_path: Path) -> None:
    source, mask = series("axial"), nodes(PLAIN)
    for name in ("a", "b"):
        write_rtstruct(tmp_path / name, mask, LABELS, source, stamp=datetime(2026, 1, 2, 3, 4, 5), seed="s")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

    write_rtstruct(tmp_path / "c", mask, LABELS, source)
    uids = [pydicom.dcmread(tmp_path / name).SOPInstanceUID for name in ("a", "c")]
    assert uids[0] != uids[1]


def test_a_contour_of_many_points_is_written_and_read(series: Any, tmp_path: Path) -> None:
    source = series("axial")
    comb = np.zeros(source.grid.shape, dtype=bool)
    comb[5, :, 1::4] = comb[5, -1] = True
    comb[5, ::2, 0::4] = comb[5, ::2, 2::4] = True
    write_rtstruct(tmp_path / "rs.dcm", comb, {"comb": 1}, source)

    roi = read_rtstruct(tmp_path / "rs.dcm").rois[0]
    assert max(len(contour.points_mm) for contour in roi.contours) > 2000  # some 66 kB, more than an explicit VR holds
    assert np.array_equal(roi_mask(roi, source.grid), comb)


def test_a_file_that_would_lose_a_voxel_is_not_written(
    series: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, mask, path = series("axial"), nodes(PLAIN), tmp_path / "rs.dcm"
    path.write_bytes(b"before")
    honest = rtstruct_contours.trace_outlines
    forgetful = lambda plane: honest(plane)[1:] if plane.sum() == 1 else honest(plane)  # noqa: E731
    monkeypatch.setattr(rtstruct_contours, "trace_outlines", forgetful)

    with pytest.raises(DicomError, match=r"voxels of structure 'lymph_node' differ\. Nothing was written"):
        write_rtstruct(path, mask, LABELS, source)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def refused_to_write(series: Series) -> dict[str, tuple[str, dict[str, Any]]]:
    ones = np.ones(series.grid.shape, np.uint8)
    two_labels = ones.copy()
    two_labels[0] = 2
    backwards = replace(series, slices=series.slices[::-1])
    unnamed = replace(series, frame_of_reference_uid="")
    return {
        "another shape": ("series .* has 12x44x60", {"mask": ones[1:]}),
        "fractions": ("Mask of float64", {"mask": ones * 0.5}),
        "a value without label": ("Mask value 2: no label has it", {"mask": two_labels, "labels": {"a": 1}}),
        "negative": ("Values -1 to 1", {"mask": np.where(ones.cumsum() == 1, -1, 1).reshape(ones.shape)}),
        "one value twice": ("each has a value of its own", {"labels": {"a": 1, "b": 1}}),
        "a node of two labels": ("Instance 1: it covers mask values", {"mask": two_labels, "instances": ones}),
        "a node outside": ("Instance 1: it covers", {"mask": ones * 0, "instances": ones}),
        "a long name": ("1 to 64 characters", {"labels": {"a" * 65: 1}}),
        "a backslash": ("no backslash", {"labels": {"a\\b": 1}}),
        "a long label": ("at most 16", {"structure_set": "a" * 17}),
        "slices backwards": ("slice 1 is 33 mm from its plane", {"series": backwards}),
        "no frame of reference": ("it has no FrameOfReferenceUID", {"series": unnamed}),
    }


CASES = [
    "another shape", "fractions", "a value without label", "negative", "one value twice", "a node of two labels",
    "a node outside", "a long name", "a backslash", "a long label", "slices backwards", "no frame of reference",
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_written_is_refused_in_one_line(case: str, series: Any, tmp_path: Path) -> None:
    source = series("axial")
    message, given_ = refused_to_write(source)[case]
    words = {"mask": np.ones(source.grid.shape, np.uint8), "labels": {"a": 1, "b": 2}, "series": source, **given_}

    with pytest.raises(DicomError, match=message) as refused:
        write_rtstruct(tmp_path / "rs.dcm", **words)
    assert len(refused.value.problems) == 1
    assert "Doe" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def broken(series: Any, tmp_path: Path) -> Callable[[Callable[[Dataset], None]], Path]:
    def make(change: Callable[[Dataset], None]) -> Path:
        path = tmp_path / "rs.dcm"
        mask = nodes(PLAIN)
        write_rtstruct(path, mask, LABELS, series("axial"))
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)
        return path

    return make


def spoil(text: str) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        contour = data.ROIContourSequence[0].ContourSequence[0]
        contour.add(pydicom.DataElement("ContourData", "DS", text, already_converted=True))

    return change


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1\\2\\nan\\4\\5\\6\\7\\8\\9", "contour 1 has a coordinate of nan mm"),
        ("1\\2\\inf\\4\\5\\6\\7\\8\\9", "contour 1 has a coordinate of inf mm"),
        ("1\\2\\1e300\\4\\5\\6\\7\\8\\9", "contour 1 has a coordinate of 1e\\+300 mm"),
        ("1\\2\\3\\4\\5\\6\\7\\8", "contour 1 has 8 coordinates"),
        ("1\\2\\x\\4\\5\\6\\7\\8\\9", "contour 1 holds something that is no number"),
        ("1\\\\3\\4\\5\\6\\7\\8\\9", "contour 1 holds something that is no number"),
    ],
)
def test_a_damaged_structure_is_refused_when_it_is_used_and_the_others_are_not(
    broken: Any, text: str, what: str
) -> None:
    structures = read_rtstruct(broken(spoil(text)))

    assert np.array_equal(roi_mask(structures.rois[1], PLAIN), nodes(PLAIN) == 2)
    with pytest.raises(DicomError, match=what) as refused:
        roi_mask(structures.rois[0], PLAIN)
    assert len(refused.value.problems) == 1


def without(*keys: Any) -> Callable[[Dataset], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key] if isinstance(key, int) else getattr(data, key)
        if isinstance(keys[-1], int):
            del data[keys[-1]]
        else:
            delattr(data, keys[-1])

    return change


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (without("ROIContourSequence", 0), "Structure 'lymph_node': no contours were stored for it."),
        (without("ROIContourSequence", 0, "ReferencedROINumber"), "Contours that name no structure: passed over."),
        (without("StructureSetROISequence", 0), "Contours of number 1: the structure set names no such structure"),
        (without("StructureSetROISequence", 0, "ROINumber"), "Structure 'lymph_node': it has no number"),
        (without("ROIContourSequence", 0, "ContourSequence", 0, "ContourData"), "1 contours are empty: passed over."),
        (spoil(""), "1 contours are empty: passed over."),
    ],
)
def test_what_is_missing_is_told_and_the_rest_is_read(
    broken: Any, change: Callable[[Dataset], None], note: str
) -> None:
    structures = read_rtstruct(broken(change))

    assert any(note in line for line in structures.notes)
    tumour = next(roi for roi in structures.rois if roi.name == "tumour")
    assert np.array_equal(roi_mask(tumour, PLAIN), nodes(PLAIN) == 2)


def twice(data: Dataset) -> None:
    data.StructureSetROISequence[1].ROINumber = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("StructureSetROISequence"), "without a structure"),
        (lambda data: setattr(data, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "not a structure set"),
    ],
)
def test_files_that_are_no_structure_sets_are_refused(broken: Any, change: Any, message: str) -> None:
    with pytest.raises(DicomError, match=message) as refused:
        read_rtstruct(broken(change))
    assert len(refused.value.problems) == 1


def test_structures_of_one_number_are_refused_when_they_are_used(broken: Any) -> None:
    structures = read_rtstruct(broken(twice))

    for roi in structures.rois:
        with pytest.raises(DicomError, match="several structures have number 1") as refused:
            roi_mask(roi, PLAIN)
        assert len(refused.value.problems) == 1


def test_files_that_are_not_dicom_are_refused(tmp_path: Path, broken: Any) -> None:
    with pytest.raises(DicomError, match="no such file"):
        read_rtstruct(tmp_path / "absent.dcm")
    (tmp_path / "text.dcm").write_text("ROI")
    with pytest.raises(DicomError, match="not a DICOM file"):
        read_rtstruct(tmp_path / "text.dcm")


def test_a_file_cut_anywhere_is_refused_or_tells_what_is_missing(broken: Any, tmp_path: Path) -> None:
    content = broken(lambda _: None).read_bytes()
    whole = [roi_mask(roi, PLAIN) for roi in read_rtstruct(tmp_path / "rs.dcm").rois]
    for length in range(0, len(content), 997):
        (tmp_path / "cut.dcm").write_bytes(content[:length])
        problems, same, notes = reading(tmp_path / "cut.dcm", whole)
        assert problems == 1 or same or notes, length


def reading(path: Path, whole: list[np.ndarray]) -> tuple[int, bool, tuple[str, ...]]:
    """Lines of the refusal, whether the structures there are as in ``whole``, and what the reader told."""
    try:
        read = read_rtstruct(path)
        masks = [roi_mask(roi, PLAIN) for roi in read.rois]
    except DicomError as error:
        return len(error.problems), False, ()
    same = all(np.array_equal(mask, expected) for mask, expected in zip(masks, whole, strict=False))
    return 0, same and len(masks) == len(whole), read.notes


def test_wrong_order_of_edges_makes_no_difference() -> None:
    contour = square(3).points_mm
    for start, stop in pairwise(range(5)):
        rolled = np.roll(contour, start, axis=0)[:: 1 if stop % 2 else -1]
        assert np.array_equal(read(Contour(rolled))[0], read(square(3))[0])
