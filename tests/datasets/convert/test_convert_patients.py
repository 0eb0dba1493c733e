"""Names of patients and scans: pseudonyms, kept names, and what must not get out."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from lnsegfm.datasets.convert import SETS, ConversionOptions, convert, list_tree
from lnsegfm.datasets.convert.conversion_record import redact
from lnsegfm.datasets.dataset import open_dataset
from tests.datasets.convert.clinic import NODE, all_text, ct, rtstruct

ROI = ("LN*=lymph_node",)
DICOM = SETS["dicom"]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


def patient(folder: Path, number: int, name: str = "LN_1", box=NODE, tilt_mm: float = 0.0, **tags: object):
    head = ct(folder / f"ct{number}", number, **tags)
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(folder / f"rs{number}.dcm", {name: box}, tilt_mm=tilt_mm, **names)
    return head


def subjects(out: Path) -> list[str]:
    with (out / "subjects.csv").open() as text:
        return [row["subject"] for row in csv.DictReader(text)]


def test_one_patient_id_of_two_issuers_is_two_patients(tmp_path):
    for number, issuer in enumerate(("Klinikum Nord", "Klinikum Nord", "Hospital B"), start=1):
        patient(tmp_path / "in", number, PatientID="4711", IssuerOfPatientID=issuer)
    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=ROI))
    assert len(subjects(tmp_path / "out")) == 3
    assert len(set(subjects(tmp_path / "out"))) == 2
    (note,) = result.notes
    assert "one PatientID of different issuers" in note
    assert "4711" not in note


@pytest.mark.parametrize("keep", [False, True])
def test_scans_without_a_patient_id_are_grouped_by_study(tmp_path, keep):
    for number, study in ((1, "1.2.1"), (2, "1.2.1"), (3, "1.2.2")):
        patient(tmp_path / "in", number, PatientID="", StudyInstanceUID=study)
    convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=ROI, keep_names=keep))
    assert sorted(subjects(tmp_path / "out").count(s) for s in set(subjects(tmp_path / "out"))) == [1, 2]


def test_names_that_clash_when_they_are_made_fit_for_files_stay_apart(tmp_path):
    odd = ("A/1", "A 1", "A\\\\1", "../../etc", "..", "Müller", "P" * 64, "?*", "CON", "a", "A")
    for number, who in enumerate(odd):
        patient(tmp_path / "in", number, PatientID=who, SpecificCharacterSet="ISO_IR 192")
    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=ROI, keep_names=True))
    assert result.failed == ()
    assert len(set(subjects(tmp_path / "out"))) == len(odd)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]
    assert len(open_dataset(tmp_path / "out").cases) == len(odd)
    assert {"Müller", "CON", "a", "A"} < set(subjects(tmp_path / "out"))


SECRETS = (
    "MRN4711X", "Schmidt", "Anna", "ACC998877", "19700203", "20200102", "Klinikum", "Dr. Weber", "Spiral", "geheim",
)  # fmt: skip


def test_nothing_of_a_patient_is_in_any_file_of_the_dataset_even_where_cases_fail(tmp_path, monkeypatch):
    source = tmp_path / "MRN4711X" / "Schmidt_Anna_19700203"
    tags = {
        "PatientID": "MRN4711X", "PatientName": "Schmidt^Anna", "PatientBirthDate": "19700203",
        "SeriesDescription": "Schmidt Spiral", "AccessionNumber": "ACC998877", "InstitutionName": "Klinikum",
        "ReferringPhysicianName": "Dr. Weber", "StudyDescription": "geheim", "IssuerOfPatientID": "Klinikum",
    }  # fmt: skip
    heads = [
        patient(source, 1, "LN Schmidt", **tags),
        patient(source, 2, "LN Anna", tilt_mm=2.9, **tags),  # fails, and names the structure
        patient(source, 3, "LN Schmidt", box=((1, 3), (100, 103), (100, 104)), **tags),  # nothing in the scan
    ]
    rtstruct(source / "old Schmidt.dcm", {"LN Anna": NODE}, series_uid="1.2.3.4.5.6", frame_uid="1.2.3.4.5.7")
    (source / "ct1" / "0001.dcm").rename(source / "ct1" / "Schmidt Anna")
    cut = next((source / "ct3").glob("*.dcm"))
    cut.rename(source / "ct3" / "Schmidt Anna")
    monkeypatch.chdir(source)  # relative paths: a file's name alone in a message
    result = convert(DICOM, Path(), tmp_path / "out", ConversionOptions(roi=ROI, unlabelled=True))
    assert len(result.failed) == 2
    told = all_text(tmp_path / "out")
    for secret in SECRETS:
        assert secret.encode() not in told, secret
    for head in heads:
        for uid in (head.SeriesInstanceUID, head.StudyInstanceUID, head.FrameOfReferenceUID, head.SOPInstanceUID):
            assert str(uid).encode() not in told
    for line in (*result.failed, *result.left_out, *result.notes):
        assert "MRN4711X" not in line
        assert "Schmidt^Anna" not in line


def test_a_message_in_the_dataset_holds_no_word_of_the_source():
    line = "Structure 'LN Doe': File Doe_J of series 1.2.840.113619.2.55.3 is cut short (12 of 300 bytes)."
    told = redact(line, ("Doe_J", "LN", "12", "", "series"))
    assert told == "Structure '...': File ... of ... UID is cut short (12 of 300 bytes)."
    assert redact("the case's scan isn't there") == "the case's scan isn't there"


def test_the_source_is_not_recognised_by_a_hash_that_anybody_can_make(tmp_path):
    import hashlib

    patient(tmp_path / "Doe", 1)
    convert(DICOM, tmp_path / "Doe", tmp_path / "out", ConversionOptions(roi=ROI))
    plain = hashlib.sha256(str((tmp_path / "Doe").resolve()).encode()).hexdigest()
    assert plain[:12].encode() not in all_text(tmp_path / "out")


def test_a_listing_never_names_the_patient(tmp_path):
    patient(tmp_path / "in", 1, PatientID="MRN4711X", PatientName="Schmidt^Anna")
    assert not {"MRN4711X", "Schmidt"} & set(str(list_tree(tmp_path / "in", ROI)).replace("^", " ").split("'"))
