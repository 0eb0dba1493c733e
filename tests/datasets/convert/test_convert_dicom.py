from __future__ import annotations

import csv
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lnsegfm.datasets.check import check
from lnsegfm.datasets.convert import SETS, ConversionOptions, convert, list_tree
from lnsegfm.datasets.convert.conversion_record import redact
from lnsegfm.datasets.dataset import open_dataset
from lnsegfm.errors import ConfigError, DataError
from lnsegfm.imaging.files import read_mask, read_volume
from tests.datasets.convert.clinic import GRID, NODE, OTHER, all_text, bytes_under, ct, filled, rtstruct, scan
from tests.listening import OnAdvance

LN = ("LN*=lymph_node",)
DICOM = SETS["dicom"]


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setenv("LNSEGFM_HOME", str(tmp_path / "home"))


def patient(folder: Path, number: int, **tags: object) -> Path:
    """One patient with a scan and a structure set that belongs to it."""
    head = ct(folder / f"ct{number}", number, PatientID=f"P{number}", **tags)
    rtstruct(
        folder / f"rs{number}.dcm",
        {"LN_1": NODE, "Heart": OTHER},
        series_uid=head.SeriesInstanceUID,
        frame_uid=head.FrameOfReferenceUID,
    )
    return folder


def only_mask(out: Path, folder: str = "labelsTr") -> np.ndarray:
    (file,) = (out / folder).glob("*.nii.gz")
    return read_mask(file)[0]


def record(out: Path) -> dict:
    return json.loads((out / "conversion.json").read_text())


def test_a_scan_and_its_structures_become_a_case_voxel_for_voxel(tmp_path):
    patient(tmp_path / "in", 1)
    roi = ("LN*=lymph_node", "Heart=heart")
    convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=roi))

    dataset = open_dataset(tmp_path / "out")
    (case,) = dataset.cases
    hu, grid = read_volume(case.images[0])
    mask, mask_grid = read_mask(case.label)
    np.testing.assert_array_equal(hu, scan(1))
    assert hu.dtype == np.int16
    assert grid.difference(GRID) is None
    assert mask_grid.difference(GRID) is None
    np.testing.assert_array_equal(mask == 1, filled(NODE))
    np.testing.assert_array_equal(mask == 2, filled(OTHER))
    assert dict(dataset.labels.names) == {"lymph_node": 1, "heart": 2}
    assert check(dataset) == []
    assert record(tmp_path / "out")["complete"]


def test_structures_go_to_the_series_that_they_name_not_to_its_neighbour(tmp_path):
    first = ct(tmp_path / "in" / "a", 1)
    second = ct(tmp_path / "in" / "b", 2, FrameOfReferenceUID=first.FrameOfReferenceUID)
    frame = first.FrameOfReferenceUID
    rtstruct(tmp_path / "in" / "rs.dcm", {"LN": NODE}, series_uid=second.SeriesInstanceUID, frame_uid=frame)

    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))

    (image,) = (tmp_path / "out" / "imagesTr").glob("*.nii.gz")
    np.testing.assert_array_equal(read_volume(image)[0], scan(2))
    (line,) = result.left_out
    assert first.SeriesInstanceUID in line
    assert "no RTSTRUCT or SEG belongs to it" in line


def test_structures_of_a_series_that_is_not_there_go_to_the_only_one_of_their_frame(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    rtstruct(tmp_path / "in" / "rs.dcm", {"LN": NODE}, series_uid="1.2.3", frame_uid=head.FrameOfReferenceUID)
    convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))
    np.testing.assert_array_equal(only_mask(tmp_path / "out") == 1, filled(NODE))

    ct(tmp_path / "in" / "b", 2, FrameOfReferenceUID=head.FrameOfReferenceUID)
    with pytest.raises(DataError, match="2 share its frame of reference"):
        convert(DICOM, tmp_path / "in", tmp_path / "again", ConversionOptions(roi=LN))


def test_the_newest_structure_set_that_has_a_label_gives_it(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(tmp_path / "in" / "1.dcm", {"LN": OTHER, "Heart": OTHER}, date="20200101", **names)
    rtstruct(tmp_path / "in" / "2.dcm", {"LN": NODE}, date="20200105", **names)
    rtstruct(tmp_path / "in" / "3.dcm", {"Lung": OTHER}, date="20200107", **names)

    rtstruct(tmp_path / "in" / "0.dcm", {"LN": OTHER}, date="20190101", **names)

    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=(*LN, "Heart=heart")))

    assert any("'LN': 2.dcm gives it and not 1.dcm: the former is newer" in line for line in result.notes)
    assert any("'LN': 2.dcm gives it and not 0.dcm: the former is newer" in line for line in result.notes)
    mask = only_mask(tmp_path / "out")
    np.testing.assert_array_equal(mask == 1, filled(NODE))
    np.testing.assert_array_equal(mask == 2, filled(OTHER))


def test_a_structure_without_a_voxel_is_no_reference(tmp_path):
    head = ct(tmp_path / "in" / "a", 1)
    rtstruct(
        tmp_path / "in" / "rs.dcm",
        {"LN": None},
        series_uid=head.SeriesInstanceUID,
        frame_uid=head.FrameOfReferenceUID,
    )
    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))
    (line,) = result.failed
    assert "nothing was drawn" in line


def test_what_no_pattern_matches_is_told_with_its_names(tmp_path):
    patient(tmp_path / "in", 1)
    with pytest.raises(DataError, match=r"no pattern matches its structures \(LN_1, Heart\)"):
        convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=("Spleen=spleen",)))
    assert not (tmp_path / "out").exists()


def test_scans_without_structures_are_converted_on_request_only(tmp_path):
    patient(tmp_path / "in", 1)
    ct(tmp_path / "in" / "bare", 7, PatientID="P7")
    convert(DICOM, tmp_path / "in", tmp_path / "plain", ConversionOptions(roi=LN))
    assert not (tmp_path / "plain" / "imagesTs").exists()
    convert(DICOM, tmp_path / "in", tmp_path / "plain", ConversionOptions(roi=LN, unlabelled=True))
    (image,) = (tmp_path / "plain" / "imagesTs").glob("*.nii.gz")
    np.testing.assert_array_equal(read_volume(image)[0], scan(7))


def test_nothing_of_the_patient_is_in_the_dataset(tmp_path):
    source = tmp_path / "MRN4711X" / "Schmidt^Anna 19700203"
    head = ct(
        source / "20200102" / "MRN4711X",
        1,
        PatientID="MRN4711X",
        PatientName="Schmidt^Anna",
        SeriesDescription="Schmidt Thorax",
        AccessionNumber="ACC998877",
        PatientBirthDate="19700203",
    )
    rtstruct(
        source / "MRN4711X.dcm",
        {"LN": NODE},
        series_uid=head.SeriesInstanceUID,
        frame_uid=head.FrameOfReferenceUID,
        PatientID="MRN4711X",
        PatientName="Schmidt^Anna",
        StructureSetLabel="Schmidt",
    )
    bad = ct(source / "bad", 2, PatientID="MRN4711X")
    rtstruct(
        source / "bad.dcm",
        {"LN": NODE},
        series_uid=bad.SeriesInstanceUID,
        frame_uid=bad.FrameOfReferenceUID,
        tilt_mm=2.9,
    )
    result = convert(DICOM, source, tmp_path / "out", ConversionOptions(roi=LN))
    assert len(result.failed) == 1
    assert len(result.written) == 1

    told = all_text(tmp_path / "out")
    for secret in ("MRN4711X", "Schmidt", "Anna", "ACC998877", "20200102", "19700203"):
        assert secret.encode() not in told, secret
    for uid in (head.SeriesInstanceUID, head.StudyInstanceUID, head.FrameOfReferenceUID, bad.SeriesInstanceUID):
        assert uid.encode() not in told


def test_a_patients_scans_stay_together_and_names_depend_on_the_key(tmp_path):
    for number, who in ((1, "P1"), (2, "P1"), (3, "P2")):
        head = ct(tmp_path / "in" / f"{number}", number, PatientID=who)
        names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
        rtstruct(tmp_path / "in" / f"{number}.dcm", {"LN": NODE}, **names)

    def subjects(out: Path) -> list[str]:
        with (out / "subjects.csv").open() as text:
            return [row["subject"] for row in csv.DictReader(text)]

    for name in "abc":
        key = tmp_path / ("other.key" if name == "c" else "one.key")
        convert(DICOM, tmp_path / "in", tmp_path / name, ConversionOptions(roi=LN, key=key))
    assert sorted(map(subjects(tmp_path / "a").count, set(subjects(tmp_path / "a")))) == [1, 2]
    assert bytes_under(tmp_path / "a") == bytes_under(tmp_path / "b")
    assert not set(subjects(tmp_path / "a")) & set(subjects(tmp_path / "c"))
    with pytest.raises(DataError, match="another key"):
        convert(DICOM, tmp_path / "in", tmp_path / "a", ConversionOptions(roi=LN, key=tmp_path / "other.key"))
    with pytest.raises(ConfigError, match="given away"):
        convert(DICOM, tmp_path / "in", tmp_path / "d", ConversionOptions(roi=LN, key=tmp_path / "d" / "key"))


def test_names_are_kept_on_request(tmp_path):
    patient(tmp_path / "in", 1)
    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN, keep_names=True))
    assert result.written[0].startswith("P1_")
    assert ",P1\n" in (tmp_path / "out" / "subjects.csv").read_text()


def test_an_interrupted_conversion_goes_on_and_comes_to_the_same_bytes(tmp_path):
    for number in (1, 2, 3):
        patient(tmp_path / "in", number)
    options = ConversionOptions(roi=LN)

    def stop(done: int, total: int, name: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(DICOM, tmp_path / "in", tmp_path / "out", options, progress=OnAdvance(stop))
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert not record(tmp_path / "out")["complete"]
    result = convert(DICOM, tmp_path / "in", tmp_path / "out", options)
    assert (len(result.kept), len(result.written)) == (1, 2)
    convert(DICOM, tmp_path / "in", tmp_path / "whole", options)
    assert bytes_under(tmp_path / "out") == bytes_under(tmp_path / "whole")


def test_a_case_that_was_killed_between_image_and_mask_is_made_again(tmp_path):
    patient(tmp_path / "in", 1)
    convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))
    before = bytes_under(tmp_path / "out")
    next((tmp_path / "out" / "labelsTr").iterdir()).unlink()
    next((tmp_path / "out" / "cases").iterdir()).unlink()
    (tmp_path / "out" / "labelsTr" / ".partial-7-x.nii.gz").write_bytes(b"half")
    convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))
    assert bytes_under(tmp_path / "out") == before


def test_a_bad_case_stops_nothing_and_leaves_nothing(tmp_path):
    patient(tmp_path / "in", 1)
    head = ct(tmp_path / "in" / "ct2", 2, PatientID="P2")
    names = {"series_uid": head.SeriesInstanceUID, "frame_uid": head.FrameOfReferenceUID}
    rtstruct(tmp_path / "in" / "rs2.dcm", {"LN": NODE}, tilt_mm=2.9, **names)

    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))

    assert len(result.written) == 1
    assert "not parallel to the slices" in result.failed[0]
    assert len(list((tmp_path / "out" / "imagesTr").iterdir())) == 1
    assert not record(tmp_path / "out")["complete"]
    assert check(open_dataset(tmp_path / "out")) == []
    rtstruct(tmp_path / "in" / "rs2.dcm", {"LN": NODE}, **names)  # repaired at the source: the same call takes it in
    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))
    assert (len(result.kept), len(result.written), result.failed) == (1, 1, ())
    assert record(tmp_path / "out")["complete"]


def test_a_case_whose_mask_cannot_be_written_leaves_no_image(tmp_path, monkeypatch):
    patient(tmp_path / "in", 1)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("lnsegfm.datasets.convert.convert_dataset.write_mask", full)
    result = convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))
    assert "No space left" in result.failed[0]
    assert not list((tmp_path / "out" / "imagesTr").iterdir())


def test_a_message_in_the_dataset_holds_no_uid_and_no_path():
    assert redact("Series 1.2.840.113619.2.55.3 has 3.5 mm") == "Series UID has 3.5 mm"
    for line in ("/data/Doe/1.dcm: damaged", "C:\\Doe\\a: damaged", "File Doe.DCM is cut short"):
        assert "Doe" not in redact(line)


def test_a_folder_of_something_else_is_refused(tmp_path):
    patient(tmp_path / "in", 1)
    patient(tmp_path / "elsewhere", 1)
    convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN))
    before = bytes_under(tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    for source, out, options, told in (
        ("elsewhere", "out", ConversionOptions(roi=LN), "another source"),
        ("in", "out", ConversionOptions(roi=("LN*=node",)), "another roi"),
        ("in", "full", ConversionOptions(roi=LN), "no conversion"),
        ("in", "in/out", ConversionOptions(roi=LN), "lie within each other"),
        ("nowhere", "new", ConversionOptions(roi=LN), "no such folder"),
    ):
        with pytest.raises(DataError, match=told):
            convert(DICOM, tmp_path / source, tmp_path / out, options)
    with pytest.raises(ConfigError, match="--roi"):
        convert(DICOM, tmp_path / "in", tmp_path / "new", ConversionOptions())
    assert bytes_under(tmp_path / "out") == before
    assert not (tmp_path / "new").exists()


def test_a_zip_is_read_and_one_that_leaves_its_folder_is_refused(tmp_path):
    patient(tmp_path / "in", 1)
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for path in sorted((tmp_path / "in").rglob("*.dcm")):
            archive.write(path, path.relative_to(tmp_path / "in"))
    convert(DICOM, tmp_path / "in.zip", tmp_path / "out", ConversionOptions(roi=LN))
    np.testing.assert_array_equal(only_mask(tmp_path / "out") == 1, filled(NODE))

    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr("../escaped.dcm", b"x")
    with pytest.raises(DataError):
        convert(DICOM, tmp_path / "bad.zip", tmp_path / "none", ConversionOptions(roi=LN))
    assert not list(tmp_path.rglob("escaped.dcm"))
    assert not (tmp_path / "none").exists()


def test_the_listing_tells_what_matches_and_writes_nothing(tmp_path):
    patient(tmp_path / "in", 1)
    before = bytes_under(tmp_path)
    tree = list_tree(tmp_path / "in", LN)
    (series,) = tree["series"]
    (structures,) = series["structures"]
    assert structures["taken"]
    assert [(roi["name"], roi["label"], roi["taken"]) for roi in structures["rois"]] == [
        ("LN_1", "lymph_node", True),
        ("Heart", None, False),
    ]
    assert "P1" not in json.dumps(tree)
    assert bytes_under(tmp_path) == before


def test_a_segmentation_is_taken_as_structures_are(tmp_path):
    from lnsegfm.imaging.dicom.seg_write import write_seg
    from lnsegfm.imaging.dicom.series import series_of

    ct(tmp_path / "in" / "a", 1)
    mask = filled(NODE).astype(np.uint8)
    write_seg(tmp_path / "seg.dcm", mask, {"LN": 1}, series_of(tmp_path / "in"))
    (tmp_path / "seg.dcm").rename(tmp_path / "in" / "seg.dcm")
    convert(DICOM, tmp_path / "in", tmp_path / "out", ConversionOptions(roi=LN, accept_automatic=True))
    np.testing.assert_array_equal(only_mask(tmp_path / "out"), mask)
