"""What a case's reference is taken from, structure by structure, and what is remembered of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from lnsegfm.datasets.convert import SETS, ConversionOptions, ConversionResult, convert
from lnsegfm.datasets.convert.dicom import case_names
from lnsegfm.datasets.convert.reference import choose_reference, fingerprint, private_words
from lnsegfm.imaging.dicom.annotated_series import read_annotated_tree
from lnsegfm.imaging.dicom.annotation import read_annotation
from lnsegfm.imaging.dicom.seg_write import write_seg
from lnsegfm.imaging.dicom.series import series_of
from lnsegfm.imaging.files import read_mask
from tests.datasets.convert.clinic import GRID, NODE, OTHER, ct, filled, rtstruct, scan
from tests.imaging.dicom.scanner import write_series
from tests.listening import OnAdvance

ROI = ("LN*=lymph_node",)


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


def dicom(tmp_path: Path, *roi: str) -> ConversionResult:
    return convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", ConversionOptions(roi=roi or ROI))


def mask(tmp_path: Path) -> np.ndarray:
    (file,) = (tmp_path / "out" / "labelsTr").glob("*.nii.gz")
    return read_mask(file)[0]


def one(tmp_path: Path, rois: dict, **more: str) -> Path:
    """A scan with one structure set; gives the structure set."""
    head = ct(tmp_path / "in" / "ct", 1)
    path = tmp_path / "in" / "rs.dcm"
    rtstruct(path, rois, series_uid=head.SeriesInstanceUID, frame_uid=head.FrameOfReferenceUID, **more)
    return path


@pytest.mark.parametrize("name", ["", "--", "_LN*", "LN? ", "-[a]", "LN [1]_"])
def test_a_structure_is_taken_whatever_it_is_called(tmp_path, name):
    one(tmp_path, {name: NODE, "LNa": OTHER, "a": OTHER})
    result = dicom(tmp_path, "LNa=heart", "a=heart", "*=lymph_node")
    assert result.failed == ()
    np.testing.assert_array_equal(mask(tmp_path) == 2, filled(NODE))
    np.testing.assert_array_equal(mask(tmp_path) == 1, filled(OTHER))


def test_of_structures_without_a_name_nothing_else_is_taken(tmp_path):
    one(tmp_path, {"": NODE, "Other": OTHER})
    dicom(tmp_path, "_=lymph_node")
    np.testing.assert_array_equal(mask(tmp_path), filled(NODE))


def test_a_segmentation_that_names_a_scan_and_lies_in_another_frame_is_a_failure(tmp_path):
    ct(tmp_path / "in" / "ct", 1)
    series, path = series_of(tmp_path / "in" / "ct"), tmp_path / "in" / "seg.dcm"
    write_seg(path, filled(NODE).astype(np.uint8), {"LN": 1}, series)
    data = dcmread(path)
    data.FrameOfReferenceUID, data.SegmentSequence[0].SegmentAlgorithmType = "1.2.3.4.5", "MANUAL"
    for frame in data.PerFrameFunctionalGroupsSequence:  # off the slices whose images they name
        x, y, z = frame.PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionSequence[0].ImagePositionPatient = [x, y, z + 1.5]
    data.save_as(path)
    (line,) = dicom(tmp_path).failed
    assert f"Series {series.uid}: " in line
    assert "1.2.3.4.5" in line


def test_a_newer_plan_without_contours_is_told_as_passed_over(tmp_path):
    head = ct(tmp_path / "in" / "ct", 1)
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(tmp_path / "in" / "1.dcm", {"LN": NODE}, date="20200101", **names)
    rtstruct(tmp_path / "in" / "2.dcm", {"LN": None}, date="20200109", **names)
    assert any("2.dcm: passed over where nothing is drawn in it" in note for note in dicom(tmp_path).notes)


def test_of_structure_sets_of_one_time_the_order_does_not_hang_on_the_names_of_their_files(tmp_path):
    head = ct(tmp_path / "in" / "ct", 1)
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    for name, uid in (("a", "1.2.9"), ("b", "1.2.7"), ("c", "1.2.8")):
        rtstruct(tmp_path / "in" / f"{name}.dcm", {"LN": NODE}, SOPInstanceUID=uid, **names)
    ((*several,),) = read_annotated_tree(tmp_path / "in").by_series.values()
    assert [annotation.uid for annotation in several] == ["1.2.7", "1.2.8", "1.2.9"]


def test_structures_that_name_neither_series_nor_a_frame_that_is_here_say_so(tmp_path):
    ct(tmp_path / "in" / "ct", 1)
    rtstruct(tmp_path / "in" / "rs.dcm", {"LN": NODE}, series_uid="", frame_uid="1.2.3")
    ((_, why),) = read_annotated_tree(tmp_path / "in").orphans
    assert why.startswith("it names no series; its frame of reference is 1.2.3, and no CT that is here lies in it;")


def test_stacks_are_counted_without_other_series_that_are_named_too(tmp_path):
    more = {"FrameOfReferenceUID": "1.2.8", "StudyInstanceUID": "1.2.9"}
    for phase in (1, 2):
        write_series(
            tmp_path / "in" / f"phase{phase}", scan(phase), GRID, SeriesInstanceUID="1.2.7", AcquisitionNumber=phase,
            **more,
        )  # fmt: skip
    write_series(tmp_path / "in" / "third", scan(3), GRID, SeriesInstanceUID="1.2.6", **more)
    path = tmp_path / "in" / "rs.dcm"
    rtstruct(path, {"LN": NODE}, series_uid="1.2.7", frame_uid="1.2.8")
    data = dcmread(path)
    named = data.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
    named.append(dcmread(path).ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
                 .RTReferencedSeriesSequence[0])  # fmt: skip
    named[1].SeriesInstanceUID = "1.2.6"
    data.save_as(path)
    ((_, why),) = read_annotated_tree(tmp_path / "in").orphans
    assert "a series that is 2 stacks of slices" in why


def test_a_case_is_another_if_any_of_what_it_is_made_of_is(tmp_path):
    annotation = read_annotation(one(tmp_path, {"LN_1": NODE, "Heart": OTHER}))
    series, chosen = series_of(tmp_path / "in" / "ct"), choose_reference([annotation], ROI)
    first, *rest = series.slices
    marks = [
        fingerprint(series, chosen),
        fingerprint(series),
        fingerprint(series, choose_reference([annotation], ("*=lymph_node",))),
        fingerprint(series, choose_reference([dataclasses.replace(annotation, digest="0")], ROI)),
        fingerprint(dataclasses.replace(series, straightened=True), chosen),
        *(
            fingerprint(dataclasses.replace(series, slices=(dataclasses.replace(first, **change), *rest)), chosen)
            for change in ({"sop_instance_uid": "1.2.3"}, {"frame": 1}, {"position_mm": (0.0, 0.0, 0.0)})
        ),
    ]
    assert len(set(marks)) == len(marks)
    moved = dataclasses.replace(first, path=Path("elsewhere") / first.path.name)
    assert fingerprint(dataclasses.replace(series, slices=(moved, *rest)), chosen) == marks[0]


def test_every_word_that_could_tell_the_source_is_a_secret(tmp_path):
    path = one(tmp_path, {"LN Doe": NODE}, SeriesDescription="drawn by Roe")
    series = dataclasses.replace(series_of(tmp_path / "in" / "ct"), description="Spiral Doe", patient_id="MRN4711")
    annotation = read_annotation(path)
    words = set(private_words(series, choose_reference([annotation], ROI)))
    assert {
        "MRN4711", "Spiral Doe", series.uid, series.study_uid, series.frame_of_reference_uid, "drawn by Roe", "LN Doe",
        annotation.uid, *annotation.series_uids, "rs.dcm", "rs", *(piece.path.name for piece in series.slices),
        *(piece.path.stem for piece in series.slices),
    } <= words  # fmt: skip
    assert "LN Doe" not in private_words(series)


def test_a_message_about_a_slice_stands_in_the_dataset_without_the_name_of_its_file(tmp_path):
    for number in (1, 2):
        ct(tmp_path / "in" / f"ct{number}", number)
    for file in sorted((tmp_path / "in").rglob("*.dcm")):
        file.rename(file.with_name(f"Schmidt-{file.stem}"))

    def harm(*_: object) -> None:
        for file in (tmp_path / "in").rglob("Schmidt-*"):
            file.write_bytes(file.read_bytes()[:-100])

    options = ConversionOptions(roi=ROI, unlabelled=True)
    (line,) = convert(SETS["dicom"], tmp_path / "in", tmp_path / "out", options, progress=OnAdvance(harm)).failed
    assert "File Schmidt-" in line
    assert "cannot be decoded" in (tmp_path / "out" / "conversion.json").read_text()
    assert "Schmidt" not in (tmp_path / "out" / "conversion.json").read_text()


def test_a_long_patient_id_is_cut_and_told_apart_by_a_hash(tmp_path):
    ct(tmp_path / "in" / "ct", 1, PatientID="P" * 64)
    case, subject = case_names(ConversionOptions(roi=ROI, keep_names=True))(series_of(tmp_path / "in" / "ct"))
    assert subject.startswith("P" * 40 + "-")
    assert len(subject) == 49
    assert case.startswith(subject + "_")
