"""Structures added to somebody's structure set: what was there stays, byte for byte."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lnsegfm.imaging.dicom import rtstruct_write
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rtstruct_options import RtstructOptions, Thinning
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.rtstruct_write import write_rtstruct
from lnsegfm.imaging.dicom.structure_masks import roi_mask
from tests.imaging.dicom.test_rtstruct import GRIDS, LABELS, nodes, scanned

WHEN = datetime(2026, 1, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return scanned(tmp_path_factory.mktemp("series"), GRIDS["oblique"])


@pytest.fixture
def theirs(series: Any, tmp_path: Path) -> Any:
    """A physician's structure set, as odd as they come: of several kinds, rounded, padded, private and approved."""

    def make(syntax: Any = ImplicitVRLittleEndian, **tags: Any) -> Path:
        path = tmp_path / "theirs.dcm"
        write_rtstruct(path, nodes(series.grid), {"Heart": 1, "lymph_node": 2}, series)
        data = pydicom.dcmread(path)
        data.SpecificCharacterSet = "ISO_IR 100"
        data.Manufacturer, data.ManufacturerModelName = "Somebody", "Planner"
        data.ApprovalStatus, data.ReviewDate, data.ReviewTime, data.ReviewerName = "APPROVED", "20250101", "1200", "B^C"
        data.StructureSetLabel, data.SeriesDescription = "RTplan", "Contours"
        for item, colour, number in zip(data.ROIContourSequence, ([1, 2, 3], [4, 5, 6]), (7, 41), strict=True):
            item.ROIDisplayColor, item.ReferencedROINumber = colour, number
        for item, name, number in zip(data.StructureSetROISequence, ("Cœur"[:1] + "ör", "Nodes"), (7, 41), strict=True):
            item.ROIName, item.ROINumber, item.ROIGenerationAlgorithm = name, number, "MANUAL"
        for item, number in zip(data.RTROIObservationsSequence, (7, 41), strict=True):
            item.ReferencedROINumber, item.ObservationNumber, item.ROIInterpreter = number, number + 100, "Doe^J"
        contour = data.ROIContourSequence[0].ContourSequence[0]
        contour.add(
            pydicom.DataElement("ContourData", "DS", "1.50 \\2\\-3e1\\ 4\\5\\-30\\6.\\7\\-30.0", already_converted=True)
        )
        data.private_block(0x3007, "Somebody", create=True).add_new(0x10, "LO", "kept")
        for key, value in tags.items():
            setattr(data, key, value)
        data.file_meta.TransferSyntaxUID = syntax
        data.walk(lambda *_: None)  # decodes: raw values have the byte order of the file they were read from
        pydicom.dcmwrite(
            path,
            data,
            implicit_vr=syntax.is_implicit_VR,
            little_endian=syntax.is_little_endian,
            force_encoding=True,
        )
        return path

    return make


def leaves(data: Any, where: str = "") -> dict[str, Any]:
    """Every value of a data set as the bytes of the file."""
    found: dict[str, Any] = {}
    for tag in data.keys():  # noqa: SIM118
        element = data.get_item(tag)
        if element.VR == "SQ" or isinstance(data[tag].value, pydicom.Sequence):
            for number, item in enumerate(data[tag].value):
                found |= leaves(item, f"{where}{tag}[{number}]/")
        else:
            found[f"{where}{tag}"] = element.value
    return found


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian],
    ids=lambda uid: uid.name,
)
def test_what_was_there_stays_byte_for_byte_and_ours_come_after_it(
    syntax: Any, series: Any, theirs: Any, tmp_path: Path
) -> None:
    path = theirs(syntax)
    before, content = leaves(pydicom.dcmread(path)), path.read_bytes()
    mask = nodes(series.grid)
    written = write_rtstruct(tmp_path / "new.dcm", mask, LABELS, series, options=RtstructOptions(add_to=path))

    assert path.read_bytes() == content
    new = pydicom.dcmread(tmp_path / "new.dcm")
    assert new.file_meta.TransferSyntaxUID == syntax
    after = leaves(new)
    changed = {key for key, value in before.items() if after.get(key) != value}
    keywords = {pydicom.datadict.keyword_for_tag(int(key.strip("()").replace(",", ""), 16)) for key in changed}
    assert keywords == {
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "SeriesNumber",
        "SeriesDescription",
        "ApprovalStatus",
        "ReviewDate",
        "ReviewTime",
        "ReviewerName",
        "StructureSetDescription",
        "InstanceCreationDate",
        "InstanceCreationTime",
        "SeriesDate",
        "SeriesTime",
        "StructureSetDate",
        "StructureSetTime",
    } - {
        key
        for key in (
            "InstanceCreationDate",
            "SeriesDate",
            "StructureSetDate",
            "InstanceCreationTime",
            "SeriesTime",
            "StructureSetTime",
        )
        if key not in keywords
    }  # fmt: skip  the clock may not have moved
    assert [item.ROIName for item in new.StructureSetROISequence] == ["Cör", "Nodes", "lymph_node", "tumour"]
    assert [item.ROINumber for item in new.StructureSetROISequence] == [7, 41, 42, 43]
    assert [item.ObservationNumber for item in new.RTROIObservationsSequence] == [107, 141, 142, 143]
    structures = read_rtstruct(tmp_path / "new.dcm")
    for roi, value in zip(structures.rois[2:], (1, 2), strict=True):
        assert np.array_equal(roi_mask(roi, series.grid), mask == value)
    assert "2 structures of the earlier structure set come first" in written.notes[-1]


def test_the_new_instance_refers_to_the_one_before_and_is_not_approved(
    series: Any, theirs: Any, tmp_path: Path
) -> None:
    path = theirs()
    old = pydicom.dcmread(path)
    options = RtstructOptions(add_to=path)
    write_rtstruct(tmp_path / "new.dcm", nodes(series.grid), LABELS, series, stamp=WHEN, options=options)

    new = pydicom.dcmread(tmp_path / "new.dcm")
    assert new.PredecessorStructureSetSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
    assert new.PredecessorStructureSetSequence[0].ReferencedSOPClassUID == old.SOPClassUID
    assert len({new.SOPInstanceUID, old.SOPInstanceUID, new.file_meta.MediaStorageSOPInstanceUID}) == 2
    assert new.SeriesInstanceUID != old.SeriesInstanceUID
    assert (new.StudyInstanceUID, new.FrameOfReferenceUID) == (old.StudyInstanceUID, old.FrameOfReferenceUID)
    assert (new.ApprovalStatus, "ReviewerName" in new, "ReviewDate" in new) == ("UNAPPROVED", False, False)
    assert (new.SeriesNumber, new.InstanceNumber, new.StructureSetDate) == (3003, 1, "20260102")
    assert (new.Manufacturer, new.ManufacturerModelName) == ("Somebody", "Planner")  # whose contours come first
    equipment = new.ContributingEquipmentSequence[-1]
    assert (equipment.Manufacturer, equipment.PurposeOfReferenceCodeSequence[0].CodeValue) == ("lnsegfm", "109103")
    assert [item.ROIGenerationAlgorithm for item in new.StructureSetROISequence] == ["MANUAL"] * 2 + ["AUTOMATIC"] * 2


def test_names_that_are_taken_get_a_number_and_letters_that_the_file_has_no_room_for_go(
    series: Any, theirs: Any, tmp_path: Path
) -> None:
    options = RtstructOptions(add_to=theirs())
    labels = {"nodes": 1, "Knötchen": 2}
    written = write_rtstruct(tmp_path / "new.dcm", nodes(series.grid), labels, series, options=options)

    assert read_rtstruct(tmp_path / "new.dcm").names[2:] == ("nodes_2", "Knotchen")
    assert written.notes[:2] == (
        "Structure 'nodes' is called 'nodes_2' in the file.",
        "Structure 'Knötchen' is called 'Knotchen' in the file.",
    )


@pytest.mark.parametrize("form", [{"holes": "keyhole"}, {"thin": Thinning(0.5, 0.05)}, {"profile": "eclipse"}])
def test_added_in_every_form_again_and_again(form: Any, series: Any, theirs: Any, tmp_path: Path) -> None:
    path = theirs(ExplicitVRLittleEndian)
    mask = nodes(series.grid)
    for count in range(3):
        new = tmp_path / f"{count}.dcm"
        write_rtstruct(new, mask, LABELS, series, stamp=WHEN, options=RtstructOptions(add_to=path, **form))
        path = new
    structures = read_rtstruct(path)
    assert structures.names[2:] == ("lymph_node", "tumour", "lymph_node_2", "tumour_2", "lymph_node_3", "tumour_3")
    if "thin" not in form:
        assert np.array_equal(roi_mask(structures.rois[-2], series.grid), mask == 1)


def test_a_seed_gives_equal_bytes(series: Any, theirs: Any, tmp_path: Path) -> None:
    options = RtstructOptions(add_to=theirs())
    for name in "ab":
        write_rtstruct(tmp_path / name, nodes(series.grid), LABELS, series, stamp=WHEN, seed="s", options=options)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def of_another(what: str, series: Any) -> Any:
    frame = {"frame_of_reference_uid": "1.2.3"}
    changes = {"patient": {"patient_id": "P2"}, "study": {"study_uid": "1.2.3"}, "series": {"uid": "1.2.3"}}
    return replace(series, **{**changes, "frame of reference": frame}[what])


@pytest.mark.parametrize("what", ["patient", "study", "series", "frame of reference"])
def test_a_structure_set_of_another_is_refused(what: str, series: Any, theirs: Any, tmp_path: Path) -> None:
    path = theirs()
    with pytest.raises(DicomError, match=what) as refused:
        write_rtstruct(
            tmp_path / "new.dcm",
            nodes(series.grid),
            LABELS,
            of_another(what, series),
            options=RtstructOptions(add_to=path),
        )
    assert "--add-to: it" in str(refused.value)
    assert "theirs" not in str(refused.value)  # a name of a file may be a patient's
    assert "P1" not in str(refused.value)
    assert "P2" not in str(refused.value)
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.dcm"]


def test_the_earlier_file_is_never_written_over(series: Any, theirs: Any) -> None:
    path = theirs()
    content = path.read_bytes()
    with pytest.raises(DicomError, match="would take its place"):
        write_rtstruct(path, nodes(series.grid), LABELS, series, options=RtstructOptions(add_to=path))
    assert path.read_bytes() == content


def test_of_a_folder_the_one_of_the_series_is_taken(series: Any, theirs: Any, tmp_path: Path) -> None:
    folder = tmp_path / "sets"
    folder.mkdir()
    options = RtstructOptions(add_to=folder)
    with pytest.raises(DicomError, match=r"no structure set of series .* lies there\. Name"):
        write_rtstruct(tmp_path / "new.dcm", nodes(series.grid), LABELS, series, options=options)
    shutil.move(theirs(PatientID="another"), folder / "another")
    (folder / "text").write_text("no DICOM")
    with pytest.raises(DicomError, match=r"1 are of others"):
        write_rtstruct(tmp_path / "new.dcm", nodes(series.grid), LABELS, series, options=options)
    shutil.move(theirs(), folder / "ours")
    write_rtstruct(tmp_path / "new.dcm", nodes(series.grid), LABELS, series, options=options)
    assert len(read_rtstruct(tmp_path / "new.dcm").rois) == 4
    shutil.copy(folder / "ours", folder / "twice")
    with pytest.raises(DicomError, match=r"2 structure sets of series .* lie there\. Name one"):
        write_rtstruct(tmp_path / "other.dcm", nodes(series.grid), LABELS, series, options=options)


def test_a_file_that_lost_something_of_the_earlier_one_is_not_written(
    series: Any, theirs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, honest = theirs(), rtstruct_write.successor

    def forgetful(*given: Any) -> Any:
        data = honest(*given)
        data.ROIContourSequence[1].ContourSequence[0].ContourData = ["1", "2", "3"] * 3
        return data

    monkeypatch.setattr(rtstruct_write, "successor", forgetful)
    with pytest.raises(
        DicomError, match=r"ROIContourSequence of the earlier file is not as it was\. Nothing was written"
    ):
        write_rtstruct(tmp_path / "new.dcm", nodes(series.grid), LABELS, series, options=RtstructOptions(add_to=path))
    assert [file.name for file in tmp_path.iterdir()] == ["theirs.dcm"]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed")
def test_dciodvfy_has_no_error(series: Any, tmp_path: Path) -> None:
    write_rtstruct(tmp_path / "old.dcm", nodes(series.grid), LABELS, series)
    options = RtstructOptions(add_to=tmp_path / "old.dcm")
    write_rtstruct(tmp_path / "new.dcm", nodes(series.grid), LABELS, series, options=options)
    said = subprocess.run(["dciodvfy", "new.dcm"], cwd=tmp_path, capture_output=True, text=True)
    assert [line for line in (said.stdout + said.stderr).splitlines() if line.startswith("Error")] == []
