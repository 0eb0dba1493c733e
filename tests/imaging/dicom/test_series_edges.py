"""Where a series stops being one: each limit from both sides, and values at the edge of their type."""

from __future__ import annotations

import struct
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless

from lnsegfm import unpacking
from lnsegfm.imaging.dicom import passed_over, plane_groups, stack, values
from lnsegfm.imaging.dicom.decoder_child import FrameRequest, decode_code_stream
from lnsegfm.imaging.dicom.dicom_zip import RULES
from lnsegfm.imaging.dicom.series import DicomError, find_series, read_series, series_of, unpacked_tree
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.scanner import write_series

UIDS = {"SeriesInstanceUID": "1.2.3", "StudyInstanceUID": "1.2", "FrameOfReferenceUID": "1.9"}


def grid(shape=(9, 4, 5), spacing=(3.0, 1.0, 1.0)) -> Grid:
    return Grid(shape, spacing, (0.0, 0.0, 0.0))


def placed(folder: Path, positions, spacing=(3.0, 1.0, 1.0), **tags) -> Path:
    """A series whose slices lie at these positions; slice k holds k."""

    def change(data: Dataset, k: int) -> None:
        data.ImagePositionPatient = [f"{v:.6g}" for v in positions[k]]

    shape = (len(positions), 4, 5)
    hu = np.broadcast_to(np.arange(shape[0])[:, None, None], shape)
    write_series(folder, hu, grid(shape, spacing), change=change, **{**UIDS, **tags})
    return folder


def along(heights, x=0.0):
    xs = np.broadcast_to(x, len(heights))
    return [(dx, 0.0, z) for dx, z in zip(xs, heights, strict=True)]


# ----------------------------------------------------------------------------------------------------- places


def test_axes_a_little_off_a_right_angle_are_made_right():
    axes = plane_groups.orthonormal_axes((1.0, 0.0, 0.0, 5e-4, 1.0, 0.0))
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    assert plane_groups.orthonormal_axes((1.0, 0.0, 0.0, 5e-3, 1.0, 0.0)) is None
    assert plane_groups.orthonormal_axes((1.005, 0.0, 0.0, 0.0, 1.0, 0.0)) is None


def test_slices_within_a_hundredth_of_a_millimetre_are_at_one_position(tmp_path):
    placed(tmp_path / "a", along(3.0 * np.arange(5)))
    placed(tmp_path / "b", along(3.0 * np.arange(5) + 0.006))
    series = series_of(tmp_path)
    assert len(series.slices) == 5
    assert "5 slices occur twice" in series.notes[0]


@pytest.mark.parametrize(
    ("positions", "fits"),
    [
        (along(3.0 * np.arange(9), x=np.linspace(0, 0.023, 9)), True),
        (along(3.0 * np.arange(9), x=np.linspace(0, 0.1, 9)), False),  # 0.1 mm over 24 mm
        (along([0.0, 2.0], x=[0, 0.015]), True),  # two hundredths of a millimetre are rounding
        (along([0.0, 2.0], x=[0, 0.03]), False),
        (along(0.1 * np.arange(9) + np.where(np.arange(9) > 4, 0.05, 0)), False),  # half a slice of 0.1 mm
        (along(20.0 * np.arange(9) + np.where(np.arange(9) > 4, 0.15, 0)), True),  # 1 % of 20 mm are 0.2 mm
        (along(20.0 * np.arange(9) + np.where(np.arange(9) > 4, 0.3, 0)), False),
    ],
)
def test_how_far_a_slice_may_be_off(tmp_path, positions, fits):
    found = find_series(placed(tmp_path, positions)).series
    assert [s.grid.shape for s in found] == [(len(positions), 4, 5)] * fits


def test_a_volume_too_large(tmp_path, monkeypatch):
    placed(tmp_path / "a", along(3.0 * np.arange(5)))
    monkeypatch.setattr(stack, "MAX_VOXELS", 99)
    assert "has 5 x 4 x 5 voxels: more than 99" in find_series(tmp_path).refused[0].reason
    monkeypatch.setattr(stack, "MAX_VOXELS", 100)
    assert len(find_series(tmp_path).series) == 1


def test_a_volume_that_straightening_makes_too_large(tmp_path, monkeypatch):
    placed(tmp_path, along(3.0 * np.arange(5), x=2.0 * np.arange(5)))
    monkeypatch.setattr(stack, "MAX_VOXELS", 5 * 4 * 13)
    assert series_of(tmp_path, straighten=True).grid.shape == (5, 4, 13)
    monkeypatch.setattr(stack, "MAX_VOXELS", 5 * 4 * 13 - 1)
    assert "sheared too far" in find_series(tmp_path, straighten=True).refused[0].reason


def test_straightened_slices_lie_where_they_lay(tmp_path):
    """Pixels of 2 x 1 mm moved by half a column and a row: linear between pixels, air beside them."""

    def change(data: Dataset, k: int) -> None:
        data.ImagePositionPatient = [0.5 * k, -2.0 * k, 3 * k]
        data.PixelData = (1024 + 100 * np.arange(20)).astype("<u2").tobytes()

    write_series(tmp_path, np.zeros((3, 4, 5), int), grid((3, 4, 5), (3.0, 2.0, 1.0)), change=change, **UIDS)
    series = series_of(tmp_path, straighten=True)
    assert series.grid.shape == (3, 6, 6)
    assert series.grid.origin_mm == (0, -4, 0)
    volume, plane = read_series(series), 100.0 * np.arange(20).reshape(4, 5)
    np.testing.assert_array_equal(volume[0, 2:, :5], plane)
    np.testing.assert_allclose(volume[1, 1:5, 1:5], (plane[:, :-1] + plane[:, 1:]) / 2)
    np.testing.assert_array_equal(volume[2, :4, 1:], plane)
    assert (volume[0, :2] == -1024).all()
    assert (volume[1, 1:5, 0] == -1024).all()


def test_a_straightened_series_whose_file_changed(tmp_path):
    placed(tmp_path, along(3.0 * np.arange(5), x=2.0 * np.arange(5)))
    series = series_of(tmp_path, straighten=True)
    data = pydicom.dcmread(tmp_path / "0002.dcm")
    data.Rows, data.PixelData = 2, data.PixelData[:20]
    data.save_as(tmp_path / "0002.dcm")
    with pytest.raises(DicomError, match=r"File 0002\.dcm of series 1\.2\.3 is 2 x 5 now\. Find the series again"):
        read_series(series)


# ----------------------------------------------------------------------------------------------- what is one series


@pytest.mark.parametrize(
    ("tags", "count"),
    [
        ({}, [8]),
        ({"FrameOfReferenceUID": "1.8"}, [8]),  # one even stack
        ({"Modality": "MR"}, [4]),  # of which nothing was asked for
        ({"PixelSpacing": [1.005, 1.0]}, [8]),  # 0.015 pixels over 4 of them
        ({"PixelSpacing": [1.5, 1.0]}, []),  # one even stack that is no volume
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.999998, 0.002]}, [8]),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0.9998, 0.02]}, []),
        ({"PixelSpacing": [1.00005, 1.0]}, [8]),
    ],
)
def test_what_tells_series_of_one_uid_apart(tmp_path, tags, count):
    placed(tmp_path / "a", along(3.0 * np.arange(4)))
    placed(tmp_path / "b", along(3.0 * np.arange(4, 8)), **tags)
    assert [len(s.slices) for s in find_series(tmp_path).series] == count


def test_modalities_of_one_uid_are_apart(tmp_path):
    placed(tmp_path / "a", along(3.0 * np.arange(4)))
    placed(tmp_path / "b", along(3.0 * np.arange(4, 8)), Modality="MR")
    assert [s.modality for s in find_series(tmp_path, modalities=("CT", "MR")).series] == ["CT", "MR"]


def test_without_uid_and_frame_of_reference_folders_are_apart(tmp_path):
    bare = {"SeriesInstanceUID": "", "FrameOfReferenceUID": ""}
    for name in ("a", "b"):
        placed(tmp_path / name, along(3.0 * np.arange(4)), **bare)
    assert [len(s.slices) for s in find_series(tmp_path).series] == [4, 4]


def test_acquisitions_of_one_image_are_no_series(tmp_path):
    """Told apart by a value that each image has to itself, nothing would be left of a series."""
    for k in range(2):
        placed(tmp_path / str(k), [(0, 0, 0)], AcquisitionNumber=k, RescaleIntercept=-1000 + k)
    assert "has 2 different images at 1 of its 1 positions" in find_series(tmp_path).refused[0].reason


def test_slices_too_large(tmp_path, monkeypatch):
    placed(tmp_path, along(3.0 * np.arange(4)))
    monkeypatch.setattr(passed_over, "MAX_PLANE", 19)
    assert "4 x 5 pixels, which no scanner makes" in find_series(tmp_path).refused[0].reason
    monkeypatch.setattr(passed_over, "MAX_PLANE", 20)
    assert len(find_series(tmp_path).series) == 1


def test_what_is_lost_with_a_refusal_is_told(tmp_path):
    placed(tmp_path / "a", along(3.0 * np.arange(4)))
    placed(tmp_path / "b", [(0, 0, 0)], ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    assert find_series(tmp_path).refused[0].harmless
    spaced = {"change": lambda data, k: setattr(data, "PixelSpacing", [1 + k, 1])}
    write_series(tmp_path / "c", np.zeros((4, 4, 5), int), grid(), **{**UIDS, "SeriesInstanceUID": "1.4"}, **spaced)
    assert not next(r for r in find_series(tmp_path).refused if r.series == "1.4").harmless


# ----------------------------------------------------------------------------------------------- pixels


def cut(folder: Path, count: int) -> Path:
    placed(folder, along(3.0 * np.arange(4)))
    file = folder / "0002.dcm"
    file.write_bytes(file.read_bytes()[:-count])
    return folder


def test_a_file_that_lacks_its_last_pixels(tmp_path):
    line = "File 0002.dcm of series 1.2.3 is cut short (38 of at least 40 bytes of pixels)"
    assert line in find_series(cut(tmp_path / "a", 6)).refused[0].reason
    # the tag and length before the pixels take 8 or 12 bytes, so the last 4 are missed on reading only
    with pytest.raises(DicomError, match=r"File 0002\.dcm of series 1\.2\.3 cannot be decoded"):
        read_series(series_of(cut(tmp_path / "b", 2)))


@pytest.mark.parametrize(
    ("tags", "stored", "expected"),
    [
        ({"RescaleSlope": 2, "RescaleIntercept": -100}, 10, -80),
        ({"RescaleSlope": 0.5, "RescaleIntercept": -100}, 11, -94.5),
        ({"RescaleSlope": 1, "RescaleIntercept": -100.25}, 10, -90.25),
        ({"PixelPaddingValue": 500, "RescaleIntercept": -1500}, 500, -1024),
        ({"PixelPaddingValue": 500, "RescaleIntercept": -1400}, 500, -1024),  # -900 HU: tissue is above, air is not
        ({"PixelPaddingValue": 500, "RescaleIntercept": -1399}, 500, -899),
        ({"PixelPaddingValue": 30, "RescaleSlope": 150, "RescaleIntercept": 0}, 30, -1024),  # 4500 HU: beyond metal
        # a range whose ends are air and tissue is not believed
        ({"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 2000}, 1024, 0),
    ],
)
def test_hu_of_one_stored_value(tmp_path, tags, stored, expected):
    def change(data: Dataset, k: int) -> None:
        data.PixelData = np.full(20, stored, "<u2").tobytes()

    write_series(tmp_path, np.zeros((3, 4, 5), int), grid((3, 4, 5)), change=change, **UIDS, **tags)
    assert (read_series(series_of(tmp_path)) == expected).all()


def test_a_value_beyond_16_bit_makes_the_volume_float(tmp_path):
    def change(data: Dataset, k: int) -> None:
        data.RescaleSlope = 1 + 999 * (k == 2)
        data.PixelData = np.full(20, 1030, "<u2").tobytes()

    write_series(tmp_path, np.zeros((3, 4, 5), int), grid((3, 4, 5)), change=change, **UIDS)
    volume = read_series(series_of(tmp_path))
    assert volume.dtype == np.float32
    assert volume[:, 0, 0].tolist() == [6, 6, 1030000 - 1024]


def table(descriptor, kind: str, content) -> dict[str, list[Dataset]]:
    lut = Dataset()
    lut.add(DataElement("LUTDescriptor", "DS" if min(descriptor) < 0 else "US", list(descriptor)))
    lut.add(DataElement("LUTData", kind, content))
    lut.ModalityLUTType = "HU"
    return {"ModalityLUTSequence": [lut]}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("descriptor", "kind", "content", "expected"),
    [
        ((3, 0, 8), "OB", b"\1\2\3\0", 3),
        ((3, 1, 8), "OB", b"\1\2\3\0", 2),
        ((3, 0, 16), "US", [100, 200, 300], 300),
        ((0, 0, 16), "OW", b"\0\1" * (1 << 16), 256),
        ((3, 0, 16), "OW", b"\0\1" * 2, "has 2 of 3 entries"),
        ((0, 0, 16), "OW", b"\0\1" * 65535, "has 65535 of 65536 entries"),
        ((-3, 0, 16), "OW", b"\0\1" * 3, "lacks LUTDescriptor or LUTData"),
        ((3, 0, 16), "LO", ["a", "b", "c"], "holds something that is no number"),
        ((2, 0, 16), "FL", [1.5, float("nan")], "holds something that is no number"),
    ],
)
def test_modality_tables(tmp_path, descriptor, kind, content, expected):
    hu = np.full((3, 4, 5), -1022)  # stored as 2
    write_series(tmp_path, hu, grid((3, 4, 5)), **UIDS, **table(descriptor, kind, content))
    series = series_of(tmp_path)
    if isinstance(expected, int):
        assert (read_series(series) == expected).all()
        return
    with pytest.raises(DicomError, match=r"File 0000\.dcm of series 1\.2\.3: its ModalityLUTSequence " + expected):
        read_series(series)


def test_a_modality_table_in_big_endian(tmp_path):
    lut = table((4, 0, 16), "OW", np.arange(300, 304).astype(">u2").tobytes())
    for file in write_series(tmp_path, np.full((3, 4, 5), -1022), grid((3, 4, 5)), **UIDS, **lut):
        data = pydicom.dcmread(file)
        data.PixelData = np.full(20, 2, ">u2").tobytes()
        data.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        pydicom.dcmwrite(file, data, implicit_vr=False, little_endian=False, enforce_file_format=True)
    assert (read_series(series_of(tmp_path)) == 302).all()


def test_jpeg_ls_is_decoded_by_the_library_that_survives_damage(monkeypatch):
    from pydicom.pixels.decoders import base

    seen: list[str] = []

    class Decoder:
        available_plugins = ("gdcm", "pyjpegls")

        def as_array(self, *_: object, **how: str) -> tuple[np.ndarray, dict[str, str]]:
            seen.append(how["decoding_plugin"])
            return np.zeros((4, 5)), {}

    monkeypatch.setattr(base, "get_decoder", lambda _: Decoder())
    request = FrameRequest(str(JPEGLSLossless), 4, 5, 16, False, 1.0)
    decode_code_stream(request, b"frame")
    monkeypatch.setattr(Decoder, "available_plugins", ("gdcm",))
    decode_code_stream(request, b"frame")
    decode_code_stream(replace(request, syntax="1.2.840.10008.1.2.4.90"), b"frame")
    assert seen == ["pyjpegls", "gdcm", "gdcm"]


def test_a_damaged_dicomdir_is_passed_over(tmp_path):
    placed(tmp_path, along(3.0 * np.arange(4)))
    (tmp_path / "DICOMDIR").write_bytes(STARTS["as written"] + b"damaged" * 20)
    found = find_series(tmp_path)
    assert (len(found.series), found.refused) == (1, ())


# ----------------------------------------------------------------------------------------------- bombs


def element(tag: tuple[int, int], kind: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    size = b"\0\0" + struct.pack("<I", len(value)) if kind in (b"OB", b"OW") else struct.pack("<H", len(value))
    return struct.pack("<HH", *tag) + kind + size + value


def meta(*parts: bytes, length: int | None = None) -> bytes:
    inner = b"".join(parts)
    return element((2, 0), b"UL", struct.pack("<I", len(inner) if length is None else length)) + inner


PREAMBLE, SYNTAX = b"\0" * 128 + b"DICM", element((2, 0x10), b"UI", DeflatedExplicitVRLittleEndian.encode())
STARTS = {
    "as written": PREAMBLE + meta(SYNTAX),
    "without a preamble": meta(SYNTAX),
    "its syntax behind 5000 bytes": PREAMBLE + meta(element((2, 1), b"OB", b"\0" * 5000), SYNTAX),
    "a length that lies": PREAMBLE + meta(SYNTAX, length=60_000),
    "without a length": PREAMBLE + SYNTAX,
}


@pytest.mark.parametrize("start", STARTS)
def test_a_deflated_file_is_measured_where_it_is_unpacked(tmp_path, start, monkeypatch):
    body = element((8, 0x60), b"CS", b"CT") + element((0x7FE0, 0x10), b"OW", b"\0" * (1 << 21))
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path = tmp_path / "a.dcm"
    path.write_bytes(STARTS[start] + pack.compress(body) + pack.flush())
    assert values.text(values.read_dataset(path, ["Modality"]), "Modality") == "CT"
    monkeypatch.setattr(values, "MAX_INFLATED", 1 << 20)
    for read in (values.read_dataset, values.read_start):
        with pytest.raises(DicomError, match=r"File a\.dcm unpacks to more than 1 MiB"):
            read(path, ["Modality"])


def test_a_deflated_file_with_bytes_to_fill_it_up(tmp_path):
    """Of more than a chunk, zlib gives what follows the end back again and again."""
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = element((8, 0x60), b"CS", b"CT") + element((0x7FE0, 0x10), b"OW", b"\0" * (1 << 21))
    content = pack.compress(body) + pack.flush()
    for more in (b"\0", b"\0" * 5000):
        (tmp_path / "a.dcm").write_bytes(STARTS["as written"] + content + more)
        assert values.text(values.read_dataset(tmp_path / "a.dcm", ["Modality"]), "Modality") == "CT"


def test_a_file_cut_within_an_element_is_refused(tmp_path):
    head = PREAMBLE + meta(element((2, 0x10), b"UI", b"1.2.840.10008.1.2.1"))
    item = element((8, 0x1150), b"UI", b"1.2.3.4")
    nested = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item
    endless, stop = b"\0\0\xff\xff\xff\xff", b"\xfe\xff\xdd\xe0\0\0\0\0"
    sequence = struct.pack("<HH", 8, 0x1140) + b"SQ" + endless + nested + stop
    private = struct.pack("<HH", 9, 0x1001) + b"OB" + endless + b"12345678" + stop
    content, ends = head, {len(head)}
    for part in (element((8, 0x60), b"CS", b"CT"), sequence, element((8, 0x4000), b"LT", b"x" * 20), private):
        content += part
        ends.add(len(content))
    for length in range(len(head), len(content) - 4):  # the last 4 bytes are zeros that hold nothing
        (tmp_path / "a.dcm").write_bytes(content[:length])
        if any(end <= length < end + 8 for end in ends):  # between elements, or within a tag: nothing tells
            continue
        with pytest.raises(DicomError, match="cut short or damaged"):
            values.read_dataset(tmp_path / "a.dcm")


def test_a_zip_of_too_many_files_or_too_large_for_the_disk(tmp_path, monkeypatch):
    path = tmp_path / "scan.zip"
    with zipfile.ZipFile(path, "w") as file:
        for k in range(3):
            file.writestr(str(k), b"x" * 1000)
    with pytest.raises(DicomError, match="more than 2 members"), unpacked_tree(path, rules=replace(RULES, members=2)):
        pass
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2999}))
    with pytest.raises(DicomError, match=r"where it is unpacked, and 0 MiB are free\. Set TMPDIR"), unpacked_tree(path):
        pass
    monkeypatch.setattr(unpacking.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 3000}))
    with unpacked_tree(path, rules=replace(RULES, members=3)) as folder:
        assert len(list(folder.iterdir())) == 3


def test_a_zip_may_have_the_names_of_a_pacs(tmp_path):
    """Backslashes between folders, names that differ by case, end in a dot or are no text: all of them are files."""
    names = ["a\\1", "A\\1", "b.", "cd:e", "e\x07", "F/2", "f/2"]
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a\\", b"")
        for name in names:
            file.writestr(name, name.encode())
    with unpacked_tree(tmp_path / "scan.zip") as folder:
        found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {name.replace("\\", "/"): name.encode() for name in names}


def test_a_zip_that_unpacks_to_many_times_its_size(tmp_path):
    rules = replace(RULES, ratio_from_bytes=1 << 20)
    with zipfile.ZipFile(tmp_path / "scan.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("Schmidt.dcm", bytes(2 << 20))
    with (
        pytest.raises(DicomError, match=r"Zip scan\.zip: it unpacks to more than 200 times its size") as error,
        unpacked_tree(tmp_path / "scan.zip", rules=rules),
    ):
        pass
    assert "Schmidt" not in str(error.value)


def test_the_unpacked_zip_is_the_owners_alone(tmp_path):
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as file:
        file.writestr("a", b"x")
    with unpacked_tree(tmp_path / "scan.zip") as folder:
        assert folder.parent.stat().st_mode & 0o077 == 0


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_a_zip_of_two_files_of_one_name(tmp_path):
    """Which of them is the slice cannot be told."""
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as file:
        for content in (b"one", b"two"):
            file.writestr("a.dcm", content)
    with (
        pytest.raises(DicomError, match=r"Zip scan\.zip: two of its members have the name"),
        unpacked_tree(tmp_path / "scan.zip"),
    ):
        pass


def test_slices_that_share_their_instance_are_told(tmp_path):
    grid = Grid((6, 4, 5), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for path in write_series(tmp_path, np.zeros(grid.shape, int), grid):
        data = pydicom.dcmread(path)
        data.SOPInstanceUID = "1.7"
        data.save_as(path)
    (series,) = find_series(tmp_path).series
    assert series.notes == ("6 of its slices share a SOPInstanceUID: exports cannot say which slice they mean",)
