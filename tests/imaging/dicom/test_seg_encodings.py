"""Frames of segmentations in every encoding that holds them: the mask of the plain file, or one line."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

from lnsegfm.imaging.dicom.decoding import DEFLATED_FRAMES, ENCAPSULATED
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.run_length import unpack_segment
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask
from lnsegfm.imaging.dicom.series import Series, series_of
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.frame_encoders import deflated, mark_deflated
from tests.imaging.dicom.scanner import write_series
from tests.imaging.dicom.test_seg import other_seg

GRIDS = {
    "whole bytes": Grid((5, 24, 32), (2.5, 0.7, 0.6)),
    "frames that end within a byte": Grid((4, 5, 7), (2.5, 0.7, 0.6)),
    "an odd number of bytes": Grid((3, 8, 9), (2.5, 0.7, 0.6)),
}


@pytest.fixture(params=GRIDS)
def series(request, tmp_path) -> Series:
    grid = GRIDS[request.param]
    write_series(tmp_path / "ct", np.zeros(grid.shape), grid)
    return series_of(tmp_path / "ct")


def mask(series: Series) -> np.ndarray:
    """Two segments, with runs and without; both sides of every frame's edge."""
    drawn = np.random.default_rng(0).random((*series.grid.shape, 2)) < 0.5
    drawn[:, 1:-1, 1:-1, 0] = True
    drawn[:, 0, :2] = drawn[:, -1, -2:] = True
    return drawn


def run_lengths(content: bytes) -> bytes:
    """PackBits as PS3.5 annex G has it: runs, literals, at most 128 of either."""
    out = bytearray()
    for value, group in itertools.groupby(content):
        length = len(list(group))
        while length:
            step = min(length, 128)
            out += bytes([257 - step if step > 1 else 0, value])
            length -= step
    return bytes(out) + b"\0" * (len(out) % 2)


def literals(content: bytes) -> bytes:
    out = b"".join(
        bytes([len(part) - 1]) + part
        for part in map(bytes, (content[k : k + 128] for k in range(0, len(content), 128)))
    )
    return out + b"\0" * (len(out) % 2)


def segment(content: bytes, pack: Callable[[bytes], bytes] = run_lengths) -> bytes:
    return struct.pack("<16I", 1, 64, *[0] * 14) + pack(content)


def packed(frame: np.ndarray) -> bytes:
    return np.packbits(frame.ravel().astype(bool), bitorder="little").tobytes()


def single(frame: np.ndarray) -> bytes:
    return frame.astype(np.uint8).tobytes()


ENCODINGS = {
    "RLE of bits": (RLELossless, lambda f: segment(packed(f))),
    "RLE of bits, as literals": (RLELossless, lambda f: segment(packed(f), literals)),
    "RLE of bytes": (RLELossless, lambda f: segment(single(f))),
    "RLE of bytes, filled up": (RLELossless, lambda f: segment(single(f) + b"\0" * (f.size % 2))),
    "deflated bits": (DEFLATED_FRAMES, lambda f: deflated(packed(f))),
    "deflated bits, filled up": (DEFLATED_FRAMES, lambda f: deflated(packed(f) + b"\0" * (len(packed(f)) % 2))),
    "deflated bytes": (DEFLATED_FRAMES, lambda f: deflated(single(f))),
    "encapsulated bits": (ENCAPSULATED, packed),
}


def encoded(path: Path, frames: list[bytes], syntax: str, how: str = "offsets") -> Path:
    """The same file with other frames."""
    data = dcmread(path)
    if how == "extended offsets":
        data.PixelData, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = encapsulate_extended(frames)
    else:
        pieces = 3 if how == "fragments" else 1
        data.PixelData = encapsulate(frames, fragments_per_frame=pieces, has_bot=how != "no offsets")
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.file_meta.TransferSyntaxUID = ENCAPSULATED if syntax == DEFLATED_FRAMES else syntax
    out = path.with_name("encoded.dcm")
    data.save_as(out, enforce_file_format=True)
    if syntax == DEFLATED_FRAMES:
        mark_deflated([out])
    return out


def written(series: Series, folder: Path, kind: str = "BINARY") -> tuple[Path, list[np.ndarray]]:
    """A plain segmentation, and the pixels of its frames by pydicom."""
    drawn = mask(series)
    pixels = drawn.astype(np.uint8) if kind == "BINARY" else drawn * 0.75
    data = other_seg(series, pixels, kind)
    data.save_as(folder / "plain.dcm", enforce_file_format=True)
    return folder / "plain.dcm", list(np.atleast_3d(dcmread(folder / "plain.dcm").pixel_array))


def masks_of(path: Path, series: Series) -> np.ndarray:
    segments = read_seg(path)
    return np.stack([segment_mask(segments, k, series.grid) for k in (1, 2)], axis=-1)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("how", ["offsets", "no offsets", "extended offsets", "fragments"])
def test_bits(series, tmp_path, encoding, how):
    path, frames = written(series, tmp_path)
    syntax, encode = ENCODINGS[encoding]
    contents = [encode(frame) for frame in frames]
    if how == "fragments" and min(map(len, contents)) < 6:
        pytest.skip("frames too small for three fragments")
    again = encoded(path, contents, syntax, how)
    assert np.array_equal(masks_of(again, series), mask(series))
    assert np.array_equal(masks_of(path, series), mask(series))


def test_highdicom_reads_the_same(tmp_path):
    """The plain file, and those of its encodings that highdicom reads."""
    grid = GRIDS["whole bytes"]
    write_series(tmp_path / "ct", np.zeros(grid.shape), grid)
    series = series_of(tmp_path / "ct")
    path, frames = written(series, tmp_path)
    uids = [s.sop_instance_uid for s in series.slices]
    agreed = []
    for name, (syntax, encode) in {"plain": ("", None), **ENCODINGS}.items():
        file = path if encode is None else encoded(path, [encode(frame) for frame in frames], syntax)
        try:
            theirs = hd.seg.segread(file).get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
        except Exception:
            continue
        assert np.array_equal(theirs, masks_of(file, series)), name
        agreed.append(name)
    assert "plain" in agreed


def test_a_deflated_file(series, tmp_path):
    path, _ = written(series, tmp_path)
    data = dcmread(path)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    data.save_as(tmp_path / "deflated.dcm", enforce_file_format=True)
    assert np.array_equal(masks_of(tmp_path / "deflated.dcm", series), mask(series))


@pytest.mark.parametrize("syntax", [DEFLATED_FRAMES, ENCAPSULATED])
def test_bytes_of_a_fractional_segmentation(series, tmp_path, syntax):
    path, frames = written(series, tmp_path, "FRACTIONAL")
    pack = deflated if syntax == DEFLATED_FRAMES else bytes
    again = encoded(path, [pack(frame.astype(np.uint8).tobytes()) for frame in frames], syntax)
    assert np.array_equal(masks_of(again, series), mask(series))


@pytest.mark.parametrize("bits", [8, 16])
def test_words_of_a_label_map(series, tmp_path, bits):
    drawn = mask(series)
    labels = np.where(drawn[..., 0], 1, np.where(drawn[..., 1], 2, 0)).astype(np.uint8)
    data = other_seg(series, np.stack([labels == 1, labels == 2], -1).astype(np.uint8), "LABELMAP")
    data.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    data = dcmread(tmp_path / "plain.dcm")
    frames = np.atleast_3d(data.pixel_array).astype(f"<u{bits // 8}")
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelData = bits - 1, frames.tobytes()
    data.save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    again = encoded(tmp_path / "plain.dcm", [deflated(frame.tobytes()) for frame in frames], DEFLATED_FRAMES)
    expected = np.stack([labels == 1, labels == 2], -1)
    assert np.array_equal(masks_of(tmp_path / "plain.dcm", series), expected)
    assert np.array_equal(masks_of(again, series), expected)


DAMAGE = {
    "cut": lambda frame: frame[: len(frame) // 2],
    "empty": lambda _: b"\0\0",
    "two segments": lambda frame: struct.pack("<3I", 2, 64, 65) + frame[12:],
    "beyond its end": lambda frame: struct.pack("<2I", 1, 1 << 31) + frame[8:],
    "twice": lambda frame: frame + frame[64:],
    "a bomb": lambda _: deflated(bytes(1 << 24)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("encoding", ["RLE of bits", "RLE of bytes", "deflated bits"])
def test_damage(tmp_path, encoding, damage):
    grid = GRIDS["whole bytes"]
    write_series(tmp_path / "ct", np.zeros(grid.shape), grid)
    series = series_of(tmp_path / "ct")
    path, frames = written(series, tmp_path)
    syntax, encode = ENCODINGS[encoding]
    contents = [encode(frame) for frame in frames]
    changed = DAMAGE[damage](contents[0])
    if syntax == DEFLATED_FRAMES and damage in ("two segments", "beyond its end", "twice"):
        changed = b"\xff" * len(contents[0])
    file = encoded(path, [changed, *contents[1:]], syntax)
    with pytest.raises(DicomError, match=r"^Segmentation encoded\.dcm: frame \d+ does not decode \(\w+\)\. Export"):
        masks_of(file, series)


def test_the_rule_of_run_lengths():
    """The example of PS3.5 annex G.3.1, and what fills up."""
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    assert unpack_segment(header + bytes([0xFE, 0xAA, 0x02, 0x80, 0x00, 0x2A, 0xFD, 0xAA]), 10) == bytes(
        [0xAA] * 3 + [0x80, 0x00, 0x2A] + [0xAA] * 4
    )
    assert unpack_segment(header + bytes([0x80, 0x00, 0x07, 0x00]), 4) == b"\7"
    with pytest.raises(ValueError, match="more than a frame"):
        unpack_segment(header + bytes([0x81, 0x01]), 4)
