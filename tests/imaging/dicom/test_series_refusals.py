"""What cannot be a series gives its one line: the series, the slices, the remedy, and nothing of the patient."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, HTJ2KLossless, RLELossless

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom import values
from lnsegfm.imaging.dicom.dicom_zip import RULES
from lnsegfm.imaging.dicom.series import DicomError, find_series, read_series, series_of, unpacked_tree
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

GRID = Grid((9, 8, 6), (3.0, 0.8, 0.7), (-12.0, 5.0, 100.0))
SMALL = replace(RULES, limit_bytes=1 << 20)
HU = np.random.default_rng(0).integers(-1000, 1000, GRID.shape)


def scan(folder: Path, **more) -> list[Path]:
    tags = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.9", **more}
    return write_series(folder, HU, GRID, **tags)


def moved(k, mm, axis=2):
    def change(data, n):
        if n in (k if isinstance(k, tuple) else (k,)):
            data.ImagePositionPatient[axis] = float(data.ImagePositionPatient[axis]) + mm

    return change


def only(k, **tags):
    def change(data, n):
        if n == k:
            for key, value in tags.items():
                setattr(data, key, value)

    return change


def remove(*slices):
    def build(folder):
        files = scan(folder)
        for k in slices:
            files[k].unlink()

    return build


def made(**more):
    return lambda folder: scan(folder, **more)


def half_spaced(folder):
    def change(data, n):
        data.ImagePositionPatient[2] = 100 + 3 * n if n < 5 else 112 + 5 * (n - 4)

    scan(folder, change=change)


def position_of_words(data, n):
    data["ImagePositionPatient"] = pydicom.DataElement("ImagePositionPatient", "LO", ["here", "there", "x"])


def colour(data, n):
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
    data.PixelData = data.PixelData * 3


def drifting(folder):
    def change(data, n):
        data.ImagePositionPatient[2] = 100 + 3 * n + 0.009 * n * n

    scan(folder, change=change)


def twice(folder):
    scan(folder / "a")
    write_series(
        folder / "b", HU + 1, GRID, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2", FrameOfReferenceUID="1.9"
    )


def twice_in_part(folder):
    scan(folder / "a")
    files = write_series(folder / "b", HU + 1, GRID, SeriesInstanceUID="1.2.3", StudyInstanceUID="1.2",
                         FrameOfReferenceUID="1.9", AcquisitionNumber=2)  # fmt: skip
    files[4].unlink()


def tilted(folder):
    def change(data, n):
        data.ImagePositionPatient[1] = 5 + 3 * n * np.tan(np.radians(15))

    scan(folder, change=change)


def cut_short(folder):
    file = scan(folder)[4]
    file.write_bytes(file.read_bytes()[:-60])


def header_only(folder):
    file = scan(folder)[4]
    data = pydicom.dcmread(file)
    data.compress(RLELossless, generate_instance_uid=False)
    del data.PixelData
    data.save_as(file)


def cut_in_the_header(folder):
    file = scan(folder)[4]
    file.write_bytes(file.read_bytes()[:400])


def garbage(folder):
    scan(folder)
    rng = np.random.default_rng(1)
    (folder / "x").write_bytes(b"\0" * 128 + b"DICM" + rng.bytes(500))


def too_many_frames(folder):
    file = scan(folder)[4]
    data = pydicom.dcmread(file)
    data.NumberOfFrames = 3
    data.PixelData = data.PixelData * 3
    data.PerFrameFunctionalGroupsSequence = [pydicom.Dataset()]
    del data.ImagePositionPatient
    data.save_as(file)


def deflated_bomb(folder):
    file = scan(folder)[4]
    data = pydicom.dcmread(file)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.PixelData = b"\0" * (1 << 22)
    data.save_as(file)


FOUND_OUT = {
    "missing slice": (
        remove(4),
        r"Series 1\.2\.3 has a 6 mm gap between slices 4 and 5 \(3 mm expected; at 109\.0 mm and 115\.0 mm along the "
        r"normal\)\. Export the complete series again, or each evenly spaced part as a series of its own; or have it "
        r"resampled on purpose: --resample-uneven\.",
    ),
    "two slices missing": (remove(2, 6), r"has a 6 mm gap between slices 2 and 3 .*and 1 more uneven steps\)\. Export"),
    "slice out of place": (made(change=moved(4, 0.5)), r"has a 3\.5 mm gap between slices 4 and 5 .*1 more uneven"),
    "spacing changes": (half_spaced, r"has a 5 mm gap between slices 5 and 6 \(3 mm expected.*each evenly spaced part"),
    "spacing drifts": (
        drifting,
        r"is unevenly spaced: its steps go from 3\.009 to 3\.135 mm, and slice 5 lies 0\.14 mm from an even place",
    ),
    "two images everywhere": (twice, r"has 2 different images at 9 of its 9 positions \(the first at 100\.0 mm"),
    "a second phase with a slice missing": (
        twice_in_part,
        r"has 2 different images at 8 of its 9 .*; AcquisitionNumber 1, 2\)\. Export each acquisition",
    ),
    "gantry tilt": (
        tilted,
        r"is sheared: its slices go 6\.4 mm sideways over 24\.0 mm \(a gantry tilt of 15\.0°\).*straighten",
    ),
    "one slice sideways": (
        made(change=moved(4, 2.0, axis=0)),
        r"moved against each other in their plane \(by 2\.0 mm betw",
    ),
    "one slice only": (remove(*range(8)), r"has 1 slice: a volume needs at least two\. Give the complete series\."),
    "localisers only": (made(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), r"all its images set aside: localisers"),
    "no positions": (made(ImagePositionPatient=None), r"all its images set aside: without a readable position"),
    "a position of words": (
        made(change=position_of_words),
        r"position",
    ),
    "no orientation": (made(ImageOrientationPatient=None), r"without a readable position or orientation"),
    "slanted axes": (made(ImageOrientationPatient=[1, 0, 0, 0.5, 0.866, 0]), r"not at right angles .*Export"),
    "zero orientation": (made(ImageOrientationPatient=[0] * 6), r"not at right angles"),
    "no pixel spacing": (made(PixelSpacing=None), r"without a readable PixelSpacing\. Give"),
    "pixel spacing of zero": (made(PixelSpacing=[0, 1]), r"without a readable PixelSpacing\. Give"),
    "colour": (made(change=colour), r"all its images set aside: colour images"),
    "all in planes of their own": (
        made(change=lambda data, n: setattr(data, "PixelSpacing", [1 + n, 1])),
        r"its 9 slices are one even stack by their places, but differ in PixelSpacing \(.*\), so they are no volume",
    ),
    "several patients": (
        made(change=only(3, PatientID="P2")),
        r"has slices of several patients \(PatientID\)\. Export",
    ),
    "several studies": (made(change=only(3, StudyInstanceUID="1.3")), r"slices of several studies \(StudyInst"),
    "immense slices": (made(Rows=65535, Columns=65535), r"cut short \(\d+ of at least 8589672450 bytes of pixels\)"),
    "cut short": (cut_short, r"File 0004\.dcm of series 1\.2\.3 is cut short \(40 of at least 96 bytes of pixels\)"),
    "header only": (made(change=only(4, PixelData=None)), r"File 0004\.dcm of series 1\.2\.3 is cut short"),
    "header only, compressed": (header_only, r"File 0004\.dcm of series 1\.2\.3 is cut short"),
}


def assert_line(line: str, pattern: str) -> None:
    assert "\n" not in line
    assert re.search(pattern, line), line
    assert line.endswith((".", ")."))
    assert not re.search(r"Doe|Jane|\bP1\b|\bP2\b|/tmp|1970", line), line


@pytest.mark.parametrize("case", FOUND_OUT)
def test_a_refusal_of_one_line(tmp_path, case):
    build, pattern = FOUND_OUT[case]
    build(tmp_path)
    write_series(tmp_path / "good", HU, GRID, SeriesInstanceUID="1.1")
    found = find_series(tmp_path)
    assert [s.uid for s in found.series] == ["1.1"], "one bad series stops no other"
    assert_line(found.refused[0].reason, pattern)
    for refusal in found.refused:
        assert_line(refusal.reason, ".")
        assert refusal.series == "1.2.3"


@pytest.mark.parametrize(
    ("build", "pattern"),
    [
        (cut_in_the_header, r"File 0004\.dcm is cut short or damaged|gap between slices 4 and 5|without a readable"),
        (garbage, ""),
        (too_many_frames, r"File 0004\.dcm is damaged \(it states 3 frames and describes 1\)\. Export or copy"),
    ],
)
def test_damaged_files(tmp_path, build, pattern):
    build(tmp_path)
    found = find_series(tmp_path)
    for refusal in found.refused:
        assert_line(refusal.reason, ".")
    if pattern:
        assert re.search(pattern, found.refused[0].reason)
    else:
        assert len(found.series) == 1


def test_a_deflated_file_that_would_fill_the_memory(tmp_path, monkeypatch):
    deflated_bomb(tmp_path)
    monkeypatch.setattr(values, "MAX_INFLATED", 1 << 20)
    found = find_series(tmp_path)
    assert_line(found.refused[0].reason, r"File 0004\.dcm unpacks to more than 1 MiB")


def test_every_cut_of_a_file_is_survived(tmp_path):
    whole = scan(tmp_path)[4].read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "0004.dcm").write_bytes(whole[:length])
        for refusal in find_series(tmp_path).refused:
            assert_line(refusal.reason, ".")


def rewritten(**tags):
    def build(folder):
        file = scan(folder)[4]
        data = pydicom.dcmread(file)
        for key, value in tags.items():
            if value is None:
                delattr(data, key)
            else:
                setattr(data, key, value)
        data.save_as(file)

    return build


def syntax(uid, content=None):
    def build(folder):
        file = scan(folder)[4]
        data = pydicom.dcmread(file)
        data.PixelData = pydicom.encaps.encapsulate([content or b"nothing."])
        data.file_meta.TransferSyntaxUID = uid
        data["PixelData"].is_undefined_length = True
        data.save_as(file)

    return build


UNREADABLE = {
    "no slope": (rewritten(RescaleSlope=None), r"File 0004\.dcm of series 1\.2\.3 has no HU: RescaleSlope or"),
    "a slope of zero": (rewritten(RescaleSlope=0), r"has no HU"),
    "electron density": (
        rewritten(RescaleType="ED"),
        r"no HU but electron .* \(RescaleType ED\)\. Give the series in HU",
    ),
    "odd bits": (rewritten(BitsStored=12, HighBit=15), r"unusual bits \(HighBit 15 of 12\)"),
    "12 bits allocated": (rewritten(BitsAllocated=12, BitsStored=12, HighBit=11), r"has 12 bits a pixel"),
    "unknown compression": (syntax(HTJ2KLossless), r"compressed as High-Throughput JPEG 2000.*Export it uncompressed"),
    "no image format": (syntax("1.2.840.10008.1.2.4.102"), r"0004\.dcm of series 1\.2\.3 .*Export it"),
    "damaged RLE": (syntax(RLELossless), r"cannot be decoded \(RLE Lossless; \w+\)\. Export it again, uncompressed"),
    "damaged JPEG 2000": (syntax("1.2.840.10008.1.2.4.90", b"\xff\x4f\xff\x51" + b"\0" * 60), r"cannot be decoded"),
    "damaged JPEG-LS": (syntax("1.2.840.10008.1.2.4.80"), r"cannot be decoded \(JPEG-LS Lossless"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_pixels_that_cannot_be_read(tmp_path, case):
    build, pattern = UNREADABLE[case]
    build(tmp_path)
    series = series_of(tmp_path)
    with pytest.raises(DicomError) as error:
        read_series(series)
    assert_line(str(error.value), pattern)


def test_files_that_went_away_or_changed(tmp_path):
    files = scan(tmp_path)
    series = series_of(tmp_path)
    data = pydicom.dcmread(files[2])
    data.Rows, data.PixelData = 4, data.PixelData[: 4 * 6 * 2]
    data.save_as(files[2])
    with pytest.raises(DicomError, match=r"File 0002\.dcm of series 1\.2\.3 is 4 x 6 now\. Find the series again"):
        read_series(series)
    files[2].unlink()
    with pytest.raises(DicomError, match=r"Series 1\.2\.3: File 0002\.dcm"):
        read_series(series)


def test_no_pixels(tmp_path):
    file = scan(tmp_path)[4]
    series = series_of(tmp_path)
    data = pydicom.dcmread(file)
    del data.PixelData
    data.save_as(file)
    with pytest.raises(DicomError, match=r"has no pixels\. Export or copy it again\."):
        read_series(series)


def test_one_series_is_asked_for(tmp_path):
    with pytest.raises(DataError, match=r"no such file or folder\. Check the path\."):
        series_of(tmp_path / "nothing")
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(DataError, match=r"holds no CT series \(no DICOM image\)\. Give the folder"):
        series_of(tmp_path)
    with pytest.raises(DataError, match=r"holds no CT series \(no DICOM image\)\. Give the folder"):
        series_of(tmp_path / "a.txt")
    write_series(tmp_path / "mr", HU, GRID, Modality="MR")
    with pytest.raises(DataError, match=r"holds no CT series \(9 MR images\)\. Give"):
        series_of(tmp_path)
    scan(tmp_path / "one")
    assert series_of(tmp_path).uid == "1.2.3"
    scan(tmp_path / "two", SeriesInstanceUID="1.2.4")
    with pytest.raises(DataError, match=r"holds 2 CT series that are scans of their own \(.*\)\. Name one"):
        series_of(tmp_path)


def test_a_localiser_is_set_aside_and_the_scan_is_kept(tmp_path):
    scan(tmp_path / "scan")
    localiser = scan(tmp_path / "loc", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    for file in localiser[2:]:
        file.unlink()
    stray = scan(tmp_path / "stray", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    for file in stray[1:]:
        file.unlink()
    found = find_series(tmp_path)
    assert len(found.series) == 1
    assert len(found.series[0].slices) == 9
    assert_line(found.refused[0].reason, r"Series 1\.2\.3: 2 of its 12 images set aside: localisers")
    assert_line(
        found.refused[1].reason, r"1 of its 12 images set aside: in another plane.* than its 9 slices\. Nothing"
    )


def zipped(path: Path, *members: tuple[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def linked(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        file.writestr(info, "/etc/passwd")
    return path


def damaged(path: Path) -> Path:
    zipped(path, ("a", bytes(range(256)) * 40))
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)
    return path


def encrypted(path: Path) -> Path:
    content = bytearray(zipped(path, ("a", b"x")).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("build", "pattern"),
    [
        (lambda p: zipped(p, ("good", b"1"), ("../evil", b"x")), "leads out of the folder"),
        (lambda p: zipped(p, ("good", b"1"), ("a/../../evil", b"x")), "leads out of the folder"),
        (lambda p: zipped(p, ("good", b"1"), ("/evil", b"x")), "is an absolute path"),
        (lambda p: zipped(p, ("good", b"1"), ("..\\evil", b"x")), "leads out of the folder"),
        (lambda p: zipped(p, ("good", b"1"), ("C:evil", b"x")), "names a drive"),
        (linked, "is a link or a device"),
        (encrypted, "it is encrypted. Unpack it"),
        (damaged, "damaged, cut short, .* Copy it again"),
        (lambda p: zipped(p, ("a", b"x"), ("a/b", b"x")), "lies below a file"),
        (lambda p: zipped(p, ("a" * 300, b"x")), "cannot be unpacked"),
        (lambda p: zipped(p, ("bomb", bytes(1 << 21))), "it unpacks to more than 1048576 bytes"),
        (lambda p: (p.write_bytes(b"PK\3\4" + b"x" * 90), p)[1], "damaged"),
    ],
)
def test_zips_that_could_do_harm(tmp_path, build, pattern, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    path = build(tmp_path / "scan.zip")
    with pytest.raises(DicomError, match=pattern) as error, unpacked_tree(path, rules=SMALL):
        pass
    assert_line(str(error.value), "Zip scan.zip")
    assert list((tmp_path / "tmp").iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_a_zip_of_nothing(tmp_path):
    with pytest.raises(DataError, match="holds no CT series"):
        series_of(zipped(tmp_path / "a.zip"))


def test_pipes_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    scan(tmp_path)
    assert len(find_series(tmp_path).series) == 1


def test_deflated_files_are_read(tmp_path):
    for file in scan(tmp_path):
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.save_as(file)
    np.testing.assert_array_equal(read_series(series_of(tmp_path)), HU)


def test_nothing_of_a_file_breaks_the_line(tmp_path):
    files = scan(tmp_path, SeriesInstanceUID="", SeriesDescription="a\nb\x1b[31m")
    files[4].unlink()
    files[3].rename(tmp_path / "new\nline")
    (refusal,) = find_series(tmp_path).refused
    assert_line(refusal.reason, r'Series "a b \[31m" \(number 3, no UID\) has a 6 mm gap')
