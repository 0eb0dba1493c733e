"""The doctor over what was drawn on DICOM series."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from lnsegfm.datasets.doctor import Diagnosis, dicom_diagnosis
from lnsegfm.imaging.dicom.annotated_series import PairingOptions
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from tests.imaging.dicom.scanner import write_series

from .scenes import GRID, ball, kinds, mask, patient

LABELS = {"LN_1": 1, "Parotid_L": 2, "Parotid_R": 3}


def diagnose_tree(root: Path) -> Diagnosis:
    """What the doctor says where structures that this software wrote are taken as references."""
    return dicom_diagnosis.diagnose_tree(root, options=PairingOptions(accept_automatic=True))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_series(tmp_path / "in" / "ct", patient(0), GRID, SeriesInstanceUID="1.2.3.0")
    return tmp_path / "in"


def draw(tree: Path, voxels: np.ndarray, change: Callable[[Any], None] | None = None) -> Diagnosis:
    path = tree / "rs.dcm"
    write_rtstruct(path, voxels, LABELS, series_of(tree / "ct"))
    if change is not None:
        data = pydicom.dcmread(path)
        change(data)
        data.save_as(path)
    return diagnose_tree(tree)


def first(data: Any) -> Any:
    return data.ROIContourSequence[0].ContourSequence[0]


def test_drawn_well(tree):
    diagnosis = draw(tree, mask())

    assert kinds(diagnosis) == []
    assert list(diagnosis.facts["structures"].values()) == [list(LABELS)]
    assert np.array_equal(diagnosis.cases[0].read().mask, mask() > 0)


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
def test_a_segmentation_drawn_well(tree, kind):
    write_seg(tree / "seg.dcm", mask(), LABELS, series_of(tree / "ct"), kind=kind)

    diagnosis = diagnose_tree(tree)

    assert kinds(diagnosis) == []
    assert list(diagnosis.facts["segmentations"].values()) == [list(LABELS)]
    assert np.array_equal(diagnosis.cases[0].read().mask, mask() > 0)


def shifted() -> np.ndarray:
    voxels = mask()
    voxels[voxels == 1] = 0
    voxels[ball((16, 5, 5), 3)] = 1
    return voxels


def swapped() -> np.ndarray:
    voxels = mask()
    voxels[mask() == 2], voxels[mask() == 3] = 3, 2
    return voxels


def speckled() -> np.ndarray:
    voxels = mask()
    voxels[5, 30, 44] = voxels[9, 30, 44] = 2
    return voxels


@pytest.mark.parametrize("way", ["structures", "segments"])
@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (shifted(), [("label-in-air", "warning"), ("label-outside", "warning")]),
        (swapped(), [("sides-swapped", "warning")]),
        (speckled(), [("fragments", "note")]),
        (np.where(mask() == 3, 0, mask()).astype(np.uint8), [("structure-empty", "note")]),
    ],
    ids=["shifted", "swapped", "speckled", "absent"],
)
def test_what_is_odd_about_what_was_drawn(tree, way, voxels, expected):
    if way == "structures" and expected[0][0] == "structure-empty":  # ours leave such a structure out
        diagnosis = draw(tree, mask(), lambda data: delattr(data.ROIContourSequence[2], "ContourSequence"))
    elif way == "structures":
        diagnosis = draw(tree, voxels)
    else:
        write_seg(tree / "seg.dcm", voxels, LABELS, series_of(tree / "ct"))
        diagnosis = diagnose_tree(tree)

    assert [k[:2] for k in kinds(diagnosis)] == expected
    assert {f.file for f in diagnosis.findings} == {tree / ("rs.dcm" if way == "structures" else "seg.dcm")}
    assert all(f.fix is None for f in diagnosis.findings)


def test_the_outline_of_the_patient_is_no_odd_structure(tree):
    voxels = np.ones(GRID.shape, np.uint8)  # table and air with it
    write_rtstruct(tree / "rs.dcm", voxels, {"BODY": 1}, series_of(tree / "ct"))

    diagnosis = diagnose_tree(tree)

    assert kinds(diagnosis) == []
    assert diagnosis.cases[0].read().mask is None


def test_a_structure_for_which_nothing_is_stored_is_told_once(tree):
    assert kinds(draw(tree, mask(), lambda d: d.ROIContourSequence.pop(0))) == [("structure-empty", "note", "")]


def test_where_values_are_no_hu_air_is_not_judged(tmp_path):
    write_series(tmp_path / "ct", patient(0), GRID, RescaleIntercept=0)

    assert [k[0] for k in kinds(draw(tmp_path, shifted()))] == ["hu-offset"]


def test_where_tissue_is_as_dark_as_air_no_structure_is_said_to_lie_in_air(tmp_path):
    write_series(tmp_path / "ct", patient(0), GRID, RescaleIntercept=-1424)

    found = {k[0] for k in kinds(draw(tmp_path, mask()))}

    assert "hu-tissue" in found
    assert not found & {"label-in-air", "label-outside"}


def lift(by_mm: float) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for contour in data.ROIContourSequence[0].ContourSequence:
            contour.ContourData = [f"{float(v) + by_mm * (k % 3 == 2):.3f}" for k, v in enumerate(contour.ContourData)]

    return change


def of_points(data: Any) -> None:
    for contour in data.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType, contour.NumberOfContourPoints = "POINT", 1
        contour.ContourData = contour.ContourData[:3]


def tilt(data: Any) -> None:
    values = list(first(data).ContourData)
    values[2] = float(values[2]) + 9
    first(data).ContourData = [f"{float(v):.3f}" for v in values]


@pytest.mark.parametrize(
    ("change", "expected", "said"),
    [
        (lift(1.0), ("contours", "note"), "lie between slices"),
        (lift(50.0), ("contours", "warning"), "lie above or below the series"),
        (lift(500.0), ("structure", "warning"), "Give the series that it was drawn on"),
        (of_points, ("contours", "note"), "are points"),
        (tilt, ("structure", "warning"), "are not parallel to the slices"),
        (lambda d: setattr(first(d), "ContourGeometricType", "OPEN_PLANAR"), ("contours", "note"), "OPEN_PLANAR"),
        (lambda d: delattr(d, "StructureSetROISequence"), ("structure", "error"), "without a structure"),
        (lambda d: setattr(d.StructureSetROISequence[0], "ROINumber", 2), ("structure", "warning"), "number 2"),
    ],
)
def test_odd_contours(tree, change, expected, said):
    diagnosis = draw(tree, mask(), change)

    assert expected in [k[:2] for k in kinds(diagnosis)]
    assert any(said in str(f) for f in diagnosis.findings)
    assert "structure-empty" not in [k[0] for k in kinds(diagnosis)]


def test_a_contour_between_the_voxels(tree):
    def change(data: Any) -> None:
        contours = data.ROIContourSequence[0].ContourSequence
        del contours[1:]
        x, y, z = (float(v) for v in contours[0].ContourData[:3])
        corners = ((0.1, 0.1), (0.2, 0.1), (0.2, 0.2))
        contours[0].ContourData = [f"{v:.3f}" for dx, dy in corners for v in (x + dx, y + dy, z)]
        contours[0].NumberOfContourPoints = 3

    assert ("structure-empty", "warning", "1.2.3.0") in kinds(draw(tree, mask(), change))


@pytest.mark.parametrize("way", ["structures", "segments"])
def test_a_series_that_is_not_there(tree, tmp_path, way):
    write_series(tmp_path / "else" / "ct", patient(1), GRID)
    write = write_rtstruct if way == "structures" else write_seg
    write(tree / "drawn.dcm", mask(), LABELS, series_of(tmp_path / "else" / "ct"))

    assert kinds(diagnose_tree(tree)) == [("no-series", "error", "")]


def test_a_series_of_the_same_frame_is_taken_and_told(tmp_path):
    write_series(tmp_path / "else", patient(0), GRID, SeriesInstanceUID="1.2.3.8", FrameOfReferenceUID="1.2.9")
    write_series(tmp_path / "in" / "ct", patient(1), GRID, SeriesInstanceUID="1.2.3.9", FrameOfReferenceUID="1.2.9")
    write_rtstruct(tmp_path / "in" / "rs.dcm", mask(), LABELS, series_of(tmp_path / "else"))

    diagnosis = diagnose_tree(tmp_path / "in")

    assert kinds(diagnosis) == [("reference", "note", "1.2.3.9")]
    assert "drawn on series 1.2.3.8, in the frame of reference of series 1.2.3.9" in diagnosis.findings[0].what
    assert diagnosis.cases[0].read().mask.any()


def test_a_series_on_which_nothing_was_drawn_beside_one_on_which_something_was(tree):
    write_series(tree / "other", patient(1), GRID, SeriesInstanceUID="1.2.3.5")

    assert kinds(draw(tree, mask())) == [("not-annotated", "note", "1.2.3.5")]


def test_damaged_files_are_errors_that_stop_nothing(tree):
    write_seg(tree / "seg.dcm", mask(), LABELS, series_of(tree / "ct"))
    data = pydicom.dcmread(tree / "seg.dcm")
    data.SegmentationType = "ODD"
    data.save_as(tree / "seg.dcm")
    write_series(tree / "p2", patient(2), GRID, SeriesInstanceUID="1.2.3.2", RescaleIntercept=0)

    diagnosis = diagnose_tree(tree)

    assert ("segmentation", "error", "") in kinds(diagnosis)
    assert ("hu-offset", "warning", "1.2.3.2") in kinds(diagnosis)
    assert all("\n" not in str(f) for f in diagnosis.findings)


def test_localisers_and_doubled_slices_are_notes(tree):
    def localise(data: Any, _: int) -> None:
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tree / "scout", patient(1)[:2], type(GRID)((2, 64, 64), GRID.spacing_mm), change=localise)
    doubled = sorted((tree / "ct").iterdir())[3]
    copy = pydicom.dcmread(doubled)
    copy.SOPInstanceUID = copy.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"
    copy.save_as(tree / "ct" / "again.dcm")

    diagnosis = diagnose_tree(tree)

    assert sorted({k[:2] for k in kinds(diagnosis)}) == [("series", "note"), ("series-note", "note")]


def frame_shared_by(tmp_path: Path, *uids: str) -> None:
    for k, uid in enumerate(uids):
        write_series(tmp_path / "in" / uid, patient(k), GRID, SeriesInstanceUID=uid, FrameOfReferenceUID="1.2.9")


@pytest.mark.parametrize("write", [write_rtstruct, write_seg])
def test_what_was_drawn_on_an_absent_phase_belongs_to_none_of_several(tmp_path, write):
    """The phases of a 4D CT share a frame of reference: the doctor gives annotations to series as a conversion does."""
    write_series(tmp_path / "else", patient(2), GRID, SeriesInstanceUID="1.2.3.7", FrameOfReferenceUID="1.2.9")
    frame_shared_by(tmp_path, "1.2.3.8", "1.2.3.9")
    write(tmp_path / "in" / "drawn.dcm", mask(), LABELS, series_of(tmp_path / "else"))

    (finding,) = diagnose_tree(tmp_path / "in").findings

    assert (finding.kind, finding.severity) == ("no-series", "error")
    assert "the series that it was drawn on is not there, and 2 share its frame of reference (1.2.3.7)" in finding.what


def test_of_two_phases_the_named_one_has_the_structures(tmp_path):
    frame_shared_by(tmp_path, "1.2.3.8", "1.2.3.9")
    write_rtstruct(tmp_path / "in" / "rs.dcm", mask(), LABELS, series_of(tmp_path / "in" / "1.2.3.9"))

    diagnosis = diagnose_tree(tmp_path / "in")

    assert kinds(diagnosis) == [("not-annotated", "note", "1.2.3.8")]
    assert [case.read().mask is not None for case in diagnosis.cases] == [False, True]


def test_structures_of_another_frame_than_the_series_that_they_name(tree):
    def change(data: Any) -> None:
        data.FrameOfReferenceUID = data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "9.9"
        for roi in data.StructureSetROISequence:
            roi.ReferencedFrameOfReferenceUID = "9.9"

    diagnosis = draw(tree, mask(), change)

    assert kinds(diagnosis) == [("reference", "note", "1.2.3.0")]
    assert "its frame of reference 9.9 is not the series'" in diagnosis.findings[0].what
    assert "names the series' images and lies on its slices" in diagnosis.findings[0].what

    def unnamed(data: Any) -> None:
        change(data)
        for roi in data.ROIContourSequence:
            for contour in roi.ContourSequence:
                del contour.ContourImageSequence
        del (
            data.ReferencedFrameOfReferenceSequence[0]
            .RTReferencedStudySequence[0]
            .RTReferencedSeriesSequence[0]
            .ContourImageSequence
        )

    diagnosis = draw(tree, mask(), unnamed)

    assert kinds(diagnosis) == [("structure", "error", "1.2.3.0")] * len(LABELS)
    assert all("its frame of reference 9.9 is not the series'" in f.what for f in diagnosis.findings)


def test_a_structure_set_of_a_refused_series(tree):
    write_rtstruct(tree / "rs.dcm", mask(), LABELS, series_of(tree / "ct"))
    sorted((tree / "ct").iterdir())[10].unlink()

    found = diagnose_tree(tree).findings

    assert [(f.kind, f.severity) for f in found] == [("no-series", "error"), ("series", "error")]
    assert "the series that it was drawn on is here and cannot be used" in found[0].what
