"""Compressed frames with bytes changed, and attributes of pixels with values changed: read, or refused in a line.

Under a limit of memory, and without a crash: in frames of JPEG such damage ends GDCM's process now and then.
"""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLSLossless, RLELossless

from lnsegfm.imaging.dicom import decoder_process
from lnsegfm.imaging.dicom.decoding import DEFLATED_FRAMES, ENCAPSULATED
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.series import find_series, read_series
from lnsegfm.imaging.grid import Grid
from tests.imaging.dicom.frame_encoders import ENCODERS, codecs, mark_deflated, put
from tests.imaging.dicom.scanner import write_series

SEEDS = int(os.environ.get("LNSEGFM_HOSTILE_SEEDS", "30"))
"""A kind; thousands of frames a kind were decoded when this was written."""
GRID = Grid((2, 24, 32), (3.0, 0.8, 0.7))
WORDS = (np.random.default_rng(0).normal(1000, 200, GRID.shape)).clip(0, 4095).astype(np.uint16)
LIMIT = 1 << 30
"""Bytes beyond what the process has: a series of some kilobytes needs none of it."""

FRAMES: dict[str, tuple[str, Callable[[np.ndarray], bytes]]] = {
    **{str(s): (s, lambda w, s=s: ENCODERS[s](w, 16)) for s in (JPEG2000Lossless, JPEGLSLossless, JPEGLossless)},
    **{str(s): (s, lambda w, s=s: ENCODERS[s](w, 16)) for s in (RLELossless, DEFLATED_FRAMES, ENCAPSULATED)},
    "lossy JPEG 2000": (
        "1.2.840.10008.1.2.4.91",
        lambda w: codecs.jpeg2k_encode(w, level=40, codecformat="j2k", bitspersample=12),
    ),
    "JPEG": (str(JPEGBaseline8Bit), lambda w: codecs.jpeg8_encode((w >> 4).astype(np.uint8))),
    "JPEG of 12 bits": (str(JPEGExtended12Bit), lambda w: codecs.jpeg_encode(w, level=95, bitspersample=12)),
}
ATTRIBUTES = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
              "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "RescaleType", "PixelPaddingValue",
              "PixelPaddingRangeLimit", "PhotometricInterpretation", "PlanarConfiguration")  # fmt: skip
VALUES = (0, 1, 2, 3, 7, 8, 10, 12, 15, 16, 17, 32, 33, 64, 255, 4096, 32767, 32768, 65535, None)


@pytest.fixture(autouse=True)
def limited() -> Iterator[None]:
    """A claim that is believed ends in a MemoryError."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    status = Path("/proc/self/statm")
    if not status.exists():
        pytest.skip("no amount of memory on this system")
    taken = int(status.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + LIMIT, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def damaged(frame: bytes, draw: random.Random) -> bytes:
    changed = bytearray(frame)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place = draw.randrange(min(draw.choice((len(changed), 150, 60)), len(changed)))
        changed[place] = draw.choice((0, 255, draw.randrange(256), changed[place] ^ 1 << draw.randrange(8)))
    how, place = draw.random(), draw.randrange(len(changed))
    if how < 0.1:
        del changed[place:]
    elif how < 0.2:
        del changed[place : place + draw.choice((1, 4, 50))]
    elif how < 0.3:
        changed[place:place] = changed[place : place + draw.choice((1, 4, 200))]
    return bytes(changed)


def altered(data: Dataset, draw: random.Random) -> None:
    for keyword in draw.sample(ATTRIBUTES, draw.choice((1, 1, 2, 4))):
        value = draw.choice(VALUES)
        if value is None and keyword in data:
            delattr(data, keyword)
        elif keyword in ("RescaleSlope", "RescaleIntercept"):
            setattr(data, keyword, str(draw.choice((0, -1, 1e9, -1e12, 0.5, 1e-9, value or 3))))
        elif keyword in ("RescaleType", "PhotometricInterpretation"):
            setattr(data, keyword, draw.choice(("", "RGB", "PALETTE COLOR", "HU", "ED", "X Y", "MONOCHROME1")))
        elif value is not None:
            setattr(data, keyword, value)


@pytest.mark.parametrize("kind", [*FRAMES, "uncompressed"])
def test_read_or_refused_in_a_line(tmp_path, kind):
    for seed in range(SEEDS):
        draw, folder = random.Random(seed), tmp_path / str(seed)

        def change(data, k, draw=draw):
            data.PixelData = WORDS[k].tobytes()
            if kind != "uncompressed":
                syntax, encode = FRAMES[kind]
                frame = bytes(encode(WORDS[k]))
                put(data, damaged(frame, draw) if draw.random() < 0.6 else frame, syntax)
            if kind == "uncompressed" or draw.random() < 0.4:
                altered(data, draw)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of what is written here
            files = write_series(folder, np.zeros(GRID.shape), GRID, SeriesInstanceUID="1.2.3", change=change)
        if kind == str(DEFLATED_FRAMES):
            mark_deflated(files)
        start = time.perf_counter()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            found, said = find_series(folder), []
            said += [refusal.reason for refusal in found.refused]
            for series in found.series:
                try:
                    volume = read_series(series)
                    assert volume.shape == series.grid.shape
                    assert np.isfinite(volume).all()
                except DicomError as error:
                    said += error.problems
        assert time.perf_counter() - start < 20, seed
        assert [str(w.message) for w in warned] == [], seed
        assert all(line.isprintable() and len(line) < 1000 and "Doe" not in line for line in said), (seed, said)


@pytest.mark.parametrize("kind", [*FRAMES])
def test_without_damage(tmp_path, kind):
    syntax, encode = FRAMES[kind]
    tags = {} if kind != "JPEG" else {"RescaleSlope": 16}
    files = write_series(
        tmp_path, np.zeros(GRID.shape), GRID, change=lambda d, k: put(d, bytes(encode(WORDS[k])), syntax), **tags
    )
    if kind == str(DEFLATED_FRAMES):
        mark_deflated(files)
    off = np.abs(read_series(find_series(tmp_path).series[0]).astype(int) + 1024 - WORDS)
    assert off.mean() < (60 if "JPEG" in kind else 1e-9)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLossless, RLELossless])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.95, 0.99])
@pytest.mark.parametrize("ended", [True, False])
def test_a_frame_that_was_cut_is_refused_not_filled(tmp_path, syntax, part, ended):
    """Also where its end marker was put back: libjpeg goes on with what it has."""

    def change(data, k):
        frame = ENCODERS[syntax](WORDS[k], 16)
        end = b"\xff\xd9" if ended and syntax != RLELossless else b""
        put(data, frame if k else frame[: int(len(frame) * part)] + end, syntax)

    write_series(tmp_path, np.zeros(GRID.shape), GRID, SeriesInstanceUID="1.2.3", change=change)
    with pytest.raises(DicomError, match=r"^File 0000\.dcm of series 1\.2\.3 cannot be decoded"):
        read_series(find_series(tmp_path).series[0])


def test_a_frame_without_its_end_reaches_no_decoder(tmp_path, monkeypatch):
    def change(data, k):
        put(data, ENCODERS[JPEGLSLossless](WORDS[k], 16).replace(b"\xff\xd9", b""), JPEGLSLossless)

    monkeypatch.setattr(decoder_process, "SHARED", None)
    write_series(tmp_path, np.zeros(GRID.shape), GRID, change=change)
    with pytest.raises(DicomError, match=r"cannot be decoded \(JPEG-LS Lossless Image Compression; ValueError\)"):
        read_series(find_series(tmp_path).series[0])


@pytest.mark.parametrize("kind", ["JPEG", "JPEG of 12 bits", "lossy JPEG 2000"])
@pytest.mark.parametrize("ended", [True, False])
def test_a_lossy_frame_that_was_cut(tmp_path, kind, ended):
    syntax, encode = FRAMES[kind]

    def change(data, k):
        frame = bytes(encode(WORDS[k]))
        put(data, frame if k else frame[: int(len(frame) * 0.7)] + b"\xff\xd9" * ended, syntax)

    write_series(tmp_path, np.zeros(GRID.shape), GRID, change=change)
    with pytest.raises(DicomError, match="cannot be decoded"):
        read_series(find_series(tmp_path).series[0])


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLossless, RLELossless])
def test_a_small_frame_that_claims_to_be_huge(tmp_path, syntax):
    files = write_series(
        tmp_path, np.zeros(GRID.shape), GRID, SeriesInstanceUID="1.2.3",
        change=lambda d, k: put(d, ENCODERS[syntax](WORDS[k], 16), syntax),
    )  # fmt: skip
    for file in files:
        data = dcmread(file)
        data.Rows = data.Columns = 8000
        data.save_as(file)
    with pytest.raises(DicomError, match="cannot be decoded"):
        read_series(find_series(tmp_path).series[0])


def test_run_lengths_that_unpack_to_far_more(tmp_path):
    """64 times their size."""
    header = (2).to_bytes(4, "little") + (64).to_bytes(4, "little") + (1 << 25).to_bytes(4, "little") + bytes(52)
    frame = header + b"\x81\x00" * (1 << 25)
    files = write_series(tmp_path, np.zeros(GRID.shape), GRID, SeriesInstanceUID="1.2.3")
    data = dcmread(files[0])
    data.PixelData = encapsulate([frame])
    data.file_meta.TransferSyntaxUID, data["PixelData"].is_undefined_length = RLELossless, True
    data.save_as(files[0])
    with pytest.raises(DicomError, match=r"cannot be decoded \(RLE Lossless; ValueError\)"):
        read_series(find_series(tmp_path).series[0])
