"""What a file says of its contours in odd ways: read by a rule and reported, or refused for one structure alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.structure_masks import image_heights, roi_mask, roi_voxels, structures_mask
from lnsegfm.imaging.dicom.structure_set import StructureSet
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.drawn import again, circle, write_contours
from tests.imaging.dicom.scanner import write_series

GRID = Grid((8, 40, 44), (3.0, 1.0, 1.0), (-20.0, -18.0, 5.0))
DRAWN = {"LN": [(k, circle(1.3, 2.2, 8.1)) for k in (2, 3, 4)], "Heart": [(3, circle(-9.3, -6.2, 4.1))]}


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("ct")
    write_series(folder, np.zeros(GRID.shape, np.int16), GRID)
    return series_of(folder)


@pytest.fixture
def changed(ct: Series, tmp_path: Path) -> Callable[..., StructureSet]:
    def make(change: Callable[[Dataset], None], drawn: dict = DRAWN, **tags: object) -> StructureSet:
        data = pydicom.dcmread(write_contours(tmp_path / "rs.dcm", ct, drawn))
        change(data)
        data.save_as(tmp_path / "rs.dcm", **tags)
        return read_rtstruct(tmp_path / "rs.dcm")

    return make


def contours(data: Dataset, roi: int = 0) -> list[Dataset]:
    return data.ROIContourSequence[roi].ContourSequence


def words(text: Callable[[list[str]], str]) -> Callable[[Dataset], None]:
    def change(data: Dataset) -> None:
        for contour in contours(data):
            value = text([str(v) for v in contour.ContourData])
            contour.add(DataElement("ContourData", "DS", value, already_converted=True))

    return change


def untyped(data: Dataset) -> None:
    for contour in contours(data):
        del contour.ContourGeometricType


def spelled(word: str) -> Callable[[Dataset], None]:
    return lambda data: [setattr(c, "ContourGeometricType", word) for c in contours(data)] and None


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (words(lambda v: "\\".join(v) + "\\"), "3 of 3 contours hold empty values"),
        (words(lambda v: "\\".join(v) + "\\ \\"), "3 of 3 contours hold empty values"),
        (words(lambda v: "\\".join([*v[:6], "", *v[6:]])), "3 of 3 contours hold empty values"),
        (words(lambda v: " \\ ".join(v)), ""),
        (untyped, "3 of 3 contours have no ContourGeometricType: read as closed"),
        (spelled("Closed-Planar"), ""),
        (lambda d: setattr(contours(d)[1], "NumberOfContourPoints", 7), "1 of 3 contours state another number"),
        (lambda d: delattr(contours(d)[0], "NumberOfContourPoints"), ""),
    ],
)
def test_what_is_read_by_a_rule(changed, ct, change, note):
    expected = roi_mask(changed(lambda _: None).rois[0], GRID)
    roi = changed(change).rois[0]
    assert np.array_equal(roi_mask(roi, GRID), expected)
    assert expected.any()
    assert [note in line for line in roi.notes] == ([True] if note else [])


@pytest.mark.parametrize(
    "text", [lambda v: "\\".join(v[:-1]) + "\\", lambda v: "\\".join([*v[:3], "", *v[4:]]), lambda v: ",".join(v)]
)
def test_a_value_that_is_missing_refuses_its_structure_alone(changed, ct, text):
    structures = changed(words(text))
    with pytest.raises(DicomError, match="Structure 'LN': contour 1 "):
        roi_mask(structures.rois[0], GRID)
    assert roi_mask(structures.rois[1], GRID).any()


def test_structures_that_share_a_number_are_refused_and_others_are_not(changed):
    drawn = {**DRAWN, "Lung": [(5, circle(9, 9, 3))]}
    structures = changed(lambda d: setattr(d.StructureSetROISequence[2], "ROINumber", 2), drawn)
    assert [bool(roi.damage) for roi in structures.rois] == [False, True, True]
    assert structures_mask(structures, GRID, ["LN=a"], {"a": 1}).any()
    with pytest.raises(DicomError, match="Structure 'Heart': several structures have number 2"):
        structures_mask(structures, GRID, ["Heart=a"], {"a": 1})


def test_copies_of_a_structure_are_read_once(changed):
    def copied(data: Dataset) -> None:
        data.StructureSetROISequence.append(data.StructureSetROISequence[0])
        data.ROIContourSequence.append(data.ROIContourSequence[0])

    expected = roi_mask(changed(lambda _: None).rois[0], GRID)
    structures = changed(copied)
    assert structures.names == ("LN", "Heart")
    assert "listed 2 times under number 1: read once" in structures.rois[0].notes[0]
    assert np.array_equal(roi_mask(structures.rois[0], GRID), expected)


REASONS = {
    "nothing was drawn for it": lambda d: delattr(d.ROIContourSequence[0], "ContourSequence"),
    "it has number 1, and the file holds contours of number 7, which no structure has": (
        lambda d: setattr(d.ROIContourSequence[0], "ReferencedROINumber", 7)
    ),
    "its contours have no points": words(lambda _: ""),
    "its contours are of type OPEN_PLANAR, which is not read": spelled("OPEN_PLANAR"),
    "it consists of points": spelled("POINT"),
    "none of its contours is closed and has three points": words(lambda v: "\\".join(v[:6])),
    "its contours lie outside the image, to its side": words(lambda v: "\\".join(aside(v))),
    "it is smaller than a voxel: its contours hold no voxel centre": words(lambda v: "\\".join(shrunk(v))),
    "its contours cancel each other": spelled("CLOSEDPLANAR_XOR"),
}


def aside(values: list[str]) -> list[str]:
    return [str(float(v) + 300) if k % 3 == 0 else v for k, v in enumerate(values)]


def shrunk(values: list[str]) -> list[str]:
    return [str(0.5 + 0.02 * float(v)) if k % 3 < 2 else v for k, v in enumerate(values)]


@pytest.mark.parametrize("reason", REASONS)
def test_why_a_structure_has_no_voxel(changed, reason):
    drawn = DRAWN
    if "cancel" in reason:  # three outlines of which each voxel is in two
        square = np.array([(0, 0), (8, 0), (8, 8), (0, 8)]) + 0.5
        halves = [np.array([(0, 0), (4, 0), (4, 8), (0, 8)]) + 0.5, np.array([(4, 0), (8, 0), (8, 8), (4, 8)]) + 0.5]
        drawn = {"LN": [(3, square), *((3, half) for half in halves)]}
    structures = changed(REASONS[reason], drawn)
    notes: list[str] = []
    mask = structures_mask(structures, GRID, ["LN=a"], {"a": 1}, on_note=notes.append)
    assert not mask.any()
    assert notes[-1] == f"Structure 'LN' has no voxel: {reason}."


def test_drawn_slices_that_hold_no_voxel_are_reported(changed):
    structures = changed(lambda _: None, {"LN": [*DRAWN["LN"], (5, circle(1.5, 2.5, 0.3))]})
    notes = roi_voxels(structures.rois[0], GRID).notes
    assert notes == ("Structure 'LN': its contours on slice 6 hold no voxel centre: nothing is read there.",)


@pytest.mark.parametrize(("by", "said"), [(1, "-1.0"), (-2, "+2.0")])
def test_contours_that_name_another_image_are_placed_by_their_coordinates(changed, ct, by, said):
    def other(data: Dataset) -> None:
        for (k, _), contour in zip(DRAWN["LN"], contours(data), strict=True):
            contour.ContourImageSequence[0].ReferencedSOPInstanceUID = ct.slices[k + by].sop_instance_uid

    expected = roi_mask(changed(lambda _: None).rois[0], GRID)
    notes: list[str] = []
    mask = roi_mask(changed(other).rois[0], GRID, images=image_heights(ct), on_note=notes.append)
    assert np.array_equal(mask, expected)
    assert notes == ["Structure 'LN': 3 of 3 contours name images (ContourImageSequence) that lie elsewhere than their "
                     f"coordinates, by {said} slices: placed by their coordinates."]  # fmt: skip


def test_contours_that_name_their_own_image_or_none_of_the_series_are_silent(changed, ct):
    def foreign(data: Dataset) -> None:
        contours(data)[0].ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3"
        del contours(data)[1].ContourImageSequence

    for change in (lambda _: None, foreign):
        assert roi_voxels(changed(change).rois[0], GRID, images=image_heights(ct)).notes == ()


def test_images_are_read_in_every_transfer_syntax_and_of_frames(changed, ct, tmp_path):
    expected = [contour.image for contour in changed(lambda _: None).rois[0].contours]
    assert expected == [(ct.slices[k].sop_instance_uid, 0) for k, _ in DRAWN["LN"]]

    data = pydicom.dcmread(tmp_path / "rs.dcm")
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(tmp_path / "explicit.dcm", implicit_vr=False, little_endian=True)
    assert [c.image for c in read_rtstruct(tmp_path / "explicit.dcm").rois[0].contours] == expected

    framed = changed(lambda d: setattr(contours(d)[0].ContourImageSequence[0], "ReferencedFrameNumber", 4))
    assert framed.rois[0].contours[0].image == (expected[0][0], 3)


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Lymphknoten groß"),
        ("ISO_IR 192", "リンパ節"),
        ("GB18030", "淋巴结 誠"),
        ("GBK", "淋巴结"),
        (["", "ISO 2022 IR 87"], "リンパ節"),
        (["", "ISO 2022 IR 149"], "림프절"),
        ("ISO_IR 192", ""),
    ],
)
def test_names_in_every_script_and_none(changed, charset, name):
    def named(data: Dataset) -> None:
        data.SpecificCharacterSet = charset
        data.StructureSetROISequence[0].ROIName = name

    structures = changed(named)
    assert structures.names == (name, "Heart")
    assert roi_mask(structures.rois[0], GRID).any()


def test_a_contour_that_is_there_again_in_the_file_counts_once(changed):
    expected = roi_mask(changed(lambda _: None).rois[0], GRID)
    copies = [(k, again(outline.round(1), start=7, back=True, closed=True)) for k, outline in DRAWN["LN"]]
    roi = changed(lambda _: None, {"LN": [*DRAWN["LN"], *copies]}).rois[0]
    read = roi_voxels(roi, GRID)
    assert np.array_equal(roi_mask(roi, GRID), expected)
    assert read.notes == ("Structure 'LN': 3 of 6 contours repeat another one of their slice: counted once.",)


@pytest.mark.parametrize("more", [2, 5, 20, 33])
@pytest.mark.parametrize("off", [0.0, 0.2])
@pytest.mark.parametrize("back", [False, True])
def test_a_start_that_is_drawn_over_counts_once(ct, tmp_path, more, off, back):
    outline = circle(1.3, 2.2, 8.1)
    closed = np.concatenate((outline, outline[:1]))
    over = np.concatenate((closed, (outline[::-1] if back else outline[1:])[:more] + off))
    once, twice = (
        roi_voxels(read_rtstruct(write_contours(tmp_path / "rs.dcm", ct, {"LN": [(3, each)]})).rois[0], ct.grid)
        for each in (outline, over)
    )

    assert twice.box == once.box
    assert np.array_equal(twice.voxels, once.voxels)
    assert twice.notes == ("Structure 'LN': 1 of 1 contours go round more than once: counted once.",)


def test_a_ring_drawn_from_its_hole_on_is_no_start_drawn_over(ct, tmp_path):
    outer, hole = circle(1.3, 2.2, 8.1), circle(1.3, 2.2, 3.1)[::-1]
    ring = np.concatenate((hole, hole[:1], outer, outer[:1]))
    read = roi_voxels(read_rtstruct(write_contours(tmp_path / "rs.dcm", ct, {"LN": [(3, ring)]})).rois[0], ct.grid)
    apart = {"LN": [(3, outer), (3, hole)]}
    expected = roi_voxels(read_rtstruct(write_contours(tmp_path / "rs.dcm", ct, apart)).rois[0], ct.grid)

    assert np.array_equal(read.voxels, expected.voxels)
    assert not any("go round" in note for note in read.notes)
