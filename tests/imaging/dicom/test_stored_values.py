"""Signs and bits of stored values, in every transfer syntax: HU as a phantom and as SimpleITK (GDCM) have them.

Headers and code streams may say different things of precision and sign. Where SimpleITK is not right, by the phantom,
the test says so.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lnsegfm.imaging.dicom.decoding import DEFLATED_FRAMES, ENCAPSULATED, low_bits
from lnsegfm.imaging.dicom.series import read_series, series_of
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.frame_encoders import ENCODERS, codecs, jpeg_2000, mark_deflated, put
from tests.imaging.dicom.scanner import write_series

SHAPE = (2, 24, 32)
GRID = Grid(SHAPE, (3.0, 0.8, 0.7))
BITS = (10, 12, 13, 14, 16)
JPEG_2000 = (JPEG2000Lossless, UID("1.2.840.10008.1.2.4.91"))
UNSIGNED_STREAMS = (JPEGLSLossless, JPEGLSNearLossless, JPEGLossless, RLELossless, DEFLATED_FRAMES, ENCAPSULATED)
ONLY_HERE = (DEFLATED_FRAMES, ENCAPSULATED)
"""Transfer syntaxes that this SimpleITK does not read."""


def stored_values(bits: int, signed: bool, most: int = 1 << 16) -> np.ndarray:
    """Every kind of value that fits, both ends among them."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, min((1 << bits) - 1, most))
    values = np.random.default_rng(bits).integers(low, high + 1, SHAPE)
    values[:, 0, :4] = low, high, 0, max(low, -1)
    return values


def hu_of(stored: np.ndarray, intercept: int) -> np.ndarray:
    return np.maximum(stored + intercept, -1024)


def write(folder: Path, frames: list[bytes], syntax: UID, bits: int, sign: int, intercept: int) -> list[Path]:
    def change(data, k):
        data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, sign
        data.RescaleIntercept = intercept
        put(data, frames[k], syntax)

    files = write_series(folder, np.zeros(SHAPE), GRID, change=change)
    return mark_deflated(files) if syntax == DEFLATED_FRAMES else files


def by_simpleitk(files: list[Path]) -> np.ndarray:
    planes = [sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in files]
    return np.maximum(np.concatenate(planes).astype(np.float64), -1024)


def here(folder: Path) -> np.ndarray:
    return read_series(series_of(folder))


@pytest.mark.parametrize("intercept", [0, -1024])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", UNSIGNED_STREAMS, ids=lambda s: s.name)
def test_streams_that_know_no_sign(tmp_path, syntax, signed, intercept):
    """Whether the unused bits hold the sign or nothing, and whatever precision the stream states."""
    for bits in BITS:
        stored = stored_values(bits, signed)
        for filled in (True, False):
            content = (stored if filled else stored & (1 << bits) - 1).astype(np.int64) & 0xFFFF
            if filled and not signed:
                continue  # there is no sign to fill them with
            for precision in {16} if filled else {bits, 16}:
                frames = [ENCODERS[syntax](plane.astype(np.uint16), precision) for plane in content]
                folder = tmp_path / f"{bits}-{precision}-{filled}"
                files = write(folder, frames, syntax, bits, int(signed), intercept)
                off = np.abs(here(folder).astype(int) - hu_of(stored, intercept))
                loss = syntax == JPEGLSNearLossless
                assert (np.sort(off.ravel())[: -off.size // 50] if loss else off).max() <= int(loss), (bits, precision)
                if syntax not in ONLY_HERE:
                    np.testing.assert_array_equal(here(folder), by_simpleitk(files))


@pytest.mark.parametrize("intercept", [0, -1024])
@pytest.mark.parametrize("syntax", JPEG_2000, ids=lambda s: s.name)
@pytest.mark.parametrize(
    ("signed", "stream_signed"), [(False, False), (True, True), (True, False), (False, True)],
    ids=["both unsigned", "both signed", "unsigned stream", "signed stream"],
)  # fmt: skip
def test_jpeg_2000(tmp_path, syntax, signed, stream_signed, intercept):
    for bits in BITS:
        stored = stored_values(bits, signed, most=30000)
        for precision in {bits, 16}:
            content = low_bits(stored, bits if precision == bits or not signed else 16, stream_signed)
            frames = [jpeg_2000(plane, precision) for plane in content]
            assert content.dtype.kind == "iu"[not stream_signed]
            folder = tmp_path / f"{bits}-{precision}"
            files = write(folder, frames, syntax, bits, int(signed), intercept)
            expected = hu_of(stored, intercept)
            if stream_signed and not signed and intercept == 0 and content.min() < 0:
                # no unsigned value plus 0 is air: the header's sign is wrong. SimpleITK goes by it.
                expected = hu_of(content.astype(int), 0)
                assert by_simpleitk(files).min() >= 0
            else:
                np.testing.assert_array_equal(by_simpleitk(files), expected)
            np.testing.assert_array_equal(here(folder), expected)


@pytest.mark.parametrize("mask", [True, False])
def test_a_signed_header_over_an_unsigned_stream_of_a_wider_word(tmp_path, mask):
    """As gdcmconv writes 13-bit scans whose PixelRepresentation is changed afterwards: every negative HU 8192 off."""
    hu = np.random.default_rng(0).integers(-1000, 3000, SHAPE)
    content = (hu & (0x1FFF if mask else 0xFFFF)).astype(np.uint16)
    for syntax in (*JPEG_2000, JPEGLSLossless, JPEGLossless, RLELossless):
        folder = tmp_path / syntax
        files = write(folder, [ENCODERS[syntax](plane, 16) for plane in content], syntax, 13, 1, 0)
        np.testing.assert_array_equal(here(folder), hu)
        np.testing.assert_array_equal(by_simpleitk(files), hu)


def test_values_wider_than_the_header_says_where_signs_agree(tmp_path):
    """BitsStored 12 over a stream of 16 bits of JPEG 2000: its values are those of the stream, in SimpleITK as well."""
    hu = np.random.default_rng(0).integers(-1000, 20000, SHAPE)
    for sign, intercept in ((1, 0), (0, -1024)):
        content = (hu - intercept).astype(np.int16 if sign else np.uint16)
        folder = tmp_path / str(sign)
        files = write(folder, [jpeg_2000(plane, 16) for plane in content], JPEG2000Lossless, 12, sign, intercept)
        np.testing.assert_array_equal(here(folder), hu)
        np.testing.assert_array_equal(by_simpleitk(files), hu)


def test_a_narrow_signed_stream_under_an_unsigned_header(tmp_path):
    """Values of 10 bits cannot be values of 12: the stream's are read. SimpleITK makes 4095 of -1."""
    stored = np.random.default_rng(0).integers(-512, 512, SHAPE)
    frames = [jpeg_2000(plane.astype(np.int16), 10) for plane in stored]
    files = write(tmp_path, frames, JPEG2000Lossless, 12, 0, -1000)
    np.testing.assert_array_equal(here(tmp_path), hu_of(stored, -1000))
    assert by_simpleitk(files).max() > 3000


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize(("sign", "intercept"), [(0, -1024), (1, 0), (1, -1024)])
def test_as_gdcm_compresses(tmp_path, syntax, sign, intercept):
    from tests.imaging.dicom.test_seg import transcoded

    hu = np.random.default_rng(0).integers(-1000, 1000, SHAPE)

    def change(data, k):
        data.BitsStored, data.HighBit, data.PixelRepresentation, data.RescaleIntercept = 12, 11, sign, intercept
        data.PixelData = (hu[k] - intercept).astype("<i2").tobytes()

    hu = np.clip(hu, -1000, 2047 + intercept if sign else 3071)
    files = write_series(tmp_path, np.zeros(SHAPE), GRID, change=change)
    for file in files:
        transcoded(file, str(syntax))
        file.with_name(f"{file.name}.packed").unlink()
    np.testing.assert_array_equal(here(tmp_path), hu)
    np.testing.assert_array_equal(by_simpleitk(files), hu)


@pytest.mark.parametrize("sign", [0, 1])
def test_jpeg_of_twelve_bits(tmp_path, sign):
    """JPEG Extended, which loses a little."""
    ramp = np.add.outer(np.arange(24), np.arange(32)) * 30
    hu = np.stack([ramp, ramp[::-1]]) - (1000 if not sign else 0)
    content = (hu + (1024 if not sign else 0)).astype(np.uint16)
    frames = [bytes(codecs.jpeg_encode(plane, level=98, bitspersample=12)) for plane in content]
    files = write(tmp_path, frames, JPEGExtended12Bit, 12, sign, 0 if sign else -1024)
    assert np.abs(here(tmp_path).astype(int) - hu).max() <= 3
    assert np.abs(here(tmp_path).astype(int) - by_simpleitk(files)).max() <= 1
    assert any("compressed with loss" in note for note in series_of(tmp_path).notes)


# ------------------------------------------------------------------------------------------------------ uncompressed


def native(folder: Path, content: np.ndarray, syntax: UID = ExplicitVRLittleEndian, **tags: object) -> list[Path]:
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    files = write_series(folder, np.zeros(content.shape), Grid(content.shape, (3.0, 0.8, 0.7)), **tags)
    for file, plane in zip(files, content, strict=True):
        data = pydicom.dcmread(file)
        data.PixelData = plane.astype(plane.dtype.newbyteorder(order)).tobytes()
        data.file_meta.TransferSyntaxUID = syntax
        little = syntax != ExplicitVRBigEndian
        pydicom.dcmwrite(file, data, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    return files


def bits(allocated: int, stored: int, sign: int, intercept: int) -> dict[str, int]:
    return {
        "BitsAllocated": allocated, "BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": sign,
        "RescaleIntercept": intercept,
    }  # fmt: skip


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
    ids=lambda s: s.name,
)
@pytest.mark.parametrize(("sign", "intercept"), [(0, -1024), (1, 0), (1, -1024)])
def test_uncompressed(tmp_path, syntax, sign, intercept):
    for stored in BITS[1:]:
        values = stored_values(stored, bool(sign), most=30000)
        for overlay in (0, 0xF << stored & 0xFFFF):  # old scanners keep overlays in the bits above BitsStored
            content = (values & (1 << stored) - 1 | overlay).astype(np.uint16)
            folder = tmp_path / f"{stored}-{overlay}"
            files = native(folder, content, syntax, **bits(16, stored, sign, intercept))
            np.testing.assert_array_equal(here(folder), hu_of(values, intercept))
            np.testing.assert_array_equal(here(folder), by_simpleitk(files))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize(("stored", "sign"), [(32, 1), (32, 0), (24, 1), (16, 1)])
def test_whole_numbers_of_32_bits(tmp_path, syntax, stored, sign):
    hu = np.random.default_rng(0).integers(-1000, 3000, SHAPE)
    intercept = 0 if sign else -1024
    content = ((hu - intercept).astype(np.int64) & (1 << stored) - 1).astype(np.uint32)
    files = native(tmp_path, content, syntax, **bits(32, stored, sign, intercept))
    assert here(tmp_path).dtype == np.int16
    np.testing.assert_array_equal(here(tmp_path), hu)
    if stored == 32 and syntax == ExplicitVRLittleEndian:
        np.testing.assert_array_equal(by_simpleitk(files), hu)
    else:  # SimpleITK takes the words of such files apart in 16 bits
        assert not np.array_equal(by_simpleitk(files), hu)


def test_values_of_twelve_packed_bits(tmp_path):
    values = stored_values(12, False)
    for sign, intercept in ((0, -1024), (1, 0)):
        low, high = values.reshape(2, -1)[:, ::2], values.reshape(2, -1)[:, 1::2]
        packed = np.stack([low & 255, low >> 8 | (high & 15) << 4, high >> 4], axis=2).astype(np.uint8)
        folder = tmp_path / str(sign)
        files = native(folder, packed, **bits(12, 12, sign, intercept), Rows=24, Columns=32)
        np.testing.assert_array_equal(here(folder), hu_of(low_bits(values, 12, bool(sign)).astype(int), intercept))
        if not sign:  # SimpleITK reads them without a sign
            np.testing.assert_array_equal(here(folder), by_simpleitk(files))


def test_monochrome_1_changes_no_stored_value(tmp_path):
    """PhotometricInterpretation is about the screen. SimpleITK turns such a scan's values over, air to metal."""
    hu = np.random.default_rng(0).integers(-1000, 3000, SHAPE)
    files = write_series(tmp_path, hu, GRID, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(here(tmp_path), hu)
    assert len(np.unique(by_simpleitk(files) + hu)) == 1


def test_a_slope_and_an_intercept_of_each_slice(tmp_path):
    stored = np.random.default_rng(0).integers(0, 1000, SHAPE)

    def change(data, k):
        data.RescaleSlope, data.RescaleIntercept = [("1", "-1024"), ("0.5", "-500.5")][k]
        data.PixelData = stored[k].astype("<u2").tobytes()

    files = write_series(tmp_path, np.zeros(SHAPE), GRID, change=change)
    expected = np.stack([stored[0] - 1024.0, stored[1] * 0.5 - 500.5])
    np.testing.assert_array_equal(here(tmp_path), expected)
    np.testing.assert_array_equal(by_simpleitk(files), expected)


@pytest.mark.parametrize(
    ("sign", "intercept", "stored", "padding"),
    [(1, 0, -2000, -2000), (1, 0, -2000, 63536), (0, -8192, 0, 0), (0, -1024, 65535, 65535), (1, -1024, -32768, 32768)],
)
def test_padding_of_either_sign_is_air(tmp_path, sign, intercept, stored, padding):
    """PixelPaddingValue is written with either sign, whatever PixelRepresentation is."""
    hu = np.random.default_rng(0).integers(-1000, 3000, SHAPE)
    content = hu - intercept
    content[:, :3] = stored
    vr = "SS" if padding < 0 else "US"

    def change(data, k):
        data.add_new("PixelPaddingValue", vr, padding)
        data.PixelRepresentation, data.RescaleIntercept = sign, intercept
        data.PixelData = (content[k] & 0xFFFF).astype("<u2").tobytes()

    write_series(tmp_path, np.zeros(SHAPE), GRID, change=change)
    hu[:, :3] = -1024
    np.testing.assert_array_equal(here(tmp_path), hu)


@pytest.mark.parametrize("keyword", ["FloatPixelData", "DoubleFloatPixelData"])
def test_floating_point(tmp_path, keyword):
    """SimpleITK reads no such file: compared with the array alone."""
    hu = np.random.default_rng(0).normal(0, 800, SHAPE).clip(-1000, 3000).astype(np.float32)
    size, name = (4, "Float") if keyword == "FloatPixelData" else (8, "DoubleFloat")
    content = hu.astype(f"<f{size}") / 2
    content[:, 0, :4] = np.nan, np.inf, -np.inf, -9999.0

    def change(data, k):
        del data.PixelData, data.BitsStored, data.HighBit, data.PixelRepresentation
        data.BitsAllocated, data.RescaleSlope, data.RescaleIntercept = 8 * size, 2, 0
        setattr(data, f"{name}PixelPaddingValue", -9999.0)
        setattr(data, keyword, content[k].tobytes())

    write_series(tmp_path, np.zeros(SHAPE), GRID, change=change)
    hu[:, 0, :4] = -1024
    np.testing.assert_allclose(here(tmp_path), hu, atol=1e-4)
    assert here(tmp_path).dtype == np.float32
