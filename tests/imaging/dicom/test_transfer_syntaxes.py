"""A transfer syntax that is not read is named as what it is, in one line with a remedy; no other file suffers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import UID, HTJ2KLossless

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.seg_read import read_seg
from lnsegfm.imaging.dicom.series import find_series, read_series, series_of
from lnsegfm.imaging.dicom.transfer_syntaxes import syntax_title
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.frame_encoders import ENCAPSULATED
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_seg import other_seg

GRID = Grid((3, 8, 16), (3.0, 0.8, 0.7))
PLAIN = r"Export it uncompressed \(explicit VR little endian\)\."
NOT_READ = {
    str(
        HTJ2KLossless
    ): "is compressed as High-Throughput JPEG 2000 Image Compression \\(Lossless Only\\), which cannot",
    "1.2.840.10008.1.2.4.203": "is compressed as High-Throughput JPEG 2000 Image Compression, which cannot be read",
    "1.2.840.10008.1.2.4.110": "is compressed as JPEG XL Lossless, which cannot be read",
    "1.2.840.10008.1.2.4.112": "is compressed as JPEG XL, which cannot be read",
    "1.2.840.10008.1.2.4.55": "is compressed as JPEG Full Progression.*, which cannot be read",
    "1.2.840.10008.1.2.4.100": "is in a format that is no image \\(MPEG2 Main Profile",
    "1.2.840.10008.1.2.4.107": "is in a format that is no image \\(HEVC",
    "1.2.840.10008.1.2.4.94": "is in a format that is no image \\(JPIP Referenced",
    "1.2.840.113619.5.2": "is in the private transfer syntax 1\\.2\\.840\\.113619\\.5\\.2, which cannot be read",
    "1.3.46.670589.33.1.4.1": "is in the private transfer syntax 1\\.3\\.46\\.670589\\.33\\.1\\.4\\.1, which cannot be",
    "1.2.840.10008.1.2.4.999": "is in the unknown transfer syntax 1\\.2\\.840\\.10008\\.1\\.2\\.4\\.999, which cannot",
}


def renamed(path: Path, syntax: str) -> None:
    """Name another transfer syntax in a file of encapsulated frames; UIDs of other lengths move the rest."""
    content, old = path.read_bytes(), b"UI\x16\0" + ENCAPSULATED.encode()
    value = syntax.encode() + b"\0" * (len(syntax) % 2)
    assert content.count(old) == 1
    content = content.replace(old, b"UI" + len(value).to_bytes(2, "little") + value)
    length = int.from_bytes(content[140:144], "little") + len(value) - 22  # (0002,0000), of the whole group
    path.write_bytes(content[:140] + length.to_bytes(4, "little") + content[144:])


def encapsulated(path: Path, frames: int) -> None:
    data = dcmread(path)
    data.PixelData = encapsulate([b"nothing."] * frames)
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = ENCAPSULATED
    data.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize("syntax", NOT_READ)
def test_a_series(tmp_path, syntax):
    for file in write_series(tmp_path / "a", np.zeros(GRID.shape), GRID, SeriesInstanceUID="1.2.3"):
        encapsulated(file, 1)
        renamed(file, syntax)
    hu = np.random.default_rng(0).integers(-1000, 1000, GRID.shape)
    write_series(tmp_path / "b", hu, GRID, SeriesInstanceUID="1.2.4")
    found = {series.uid: series for series in find_series(tmp_path).series}
    with pytest.raises(DicomError, match=rf"^File 0000\.dcm of series 1\.2\.3 {NOT_READ[syntax]}.*\. {PLAIN}$"):
        read_series(found["1.2.3"])
    assert np.array_equal(read_series(found["1.2.4"]), hu)


@pytest.mark.parametrize("syntax", NOT_READ)
def test_a_segmentation(tmp_path, syntax):
    write_series(tmp_path / "ct", np.zeros(GRID.shape), GRID)
    data = other_seg(series_of(tmp_path / "ct"), np.ones((*GRID.shape, 1), np.uint8), "BINARY")
    data.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    encapsulated(tmp_path / "seg.dcm", 3)
    renamed(tmp_path / "seg.dcm", syntax)
    with pytest.raises(DicomError, match=rf"^Segmentation seg\.dcm {NOT_READ[syntax]}.*\. {PLAIN}$"):
        read_seg(tmp_path / "seg.dcm")


def test_a_file_that_cannot_even_be_parsed_in_a_private_transfer_syntax(tmp_path):
    files = write_series(tmp_path, np.zeros(GRID.shape), GRID)
    encapsulated(files[1], 1)
    renamed(files[1], "1.2.840.113619.5.2")
    content = files[1].read_bytes()
    start = 144 + int.from_bytes(content[140:144], "little")
    files[1].write_bytes(content[:start] + np.random.default_rng(0).bytes(4000))
    refused = [str(refusal) for refusal in find_series(tmp_path).refused]
    assert any("private transfer syntax 1.2.840.113619.5.2" in line for line in refused), refused
    assert not any("damaged" in line for line in refused)


def test_titles():
    assert syntax_title(UID("1.2.840.10008.1.2.8.1")) == "Deflated Image Frame Compression"
    assert syntax_title(UID("1.2.840.10008.1.2.1")) == "Explicit VR Little Endian"
    assert syntax_title(UID("1.2.3")) == "1.2.3"
