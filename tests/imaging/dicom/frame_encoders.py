"""Frames as encoders write them: the code stream's precision and sign are chosen apart from the header's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import JPEGLSLosslessEncoder, JPEGLSNearLosslessEncoder, RLELosslessEncoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lnsegfm.imaging.dicom.decoding import DEFLATED_FRAMES, ENCAPSULATED

codecs = pytest.importorskip("imagecodecs")


def words(values: np.ndarray) -> bytes:
    return values.astype("<u2" if values.dtype.kind == "u" else "<i2").tobytes()


def jpeg_2000(values: np.ndarray, precision: int) -> bytes:
    """Signed where the array is."""
    return bytes(codecs.jpeg2k_encode(values, level=0, codecformat="j2k", bitspersample=precision, reversible=True))


def jpeg_ls(values: np.ndarray, precision: int, error: int = 0) -> bytes:
    encoder = JPEGLSNearLosslessEncoder if error else JPEGLSLosslessEncoder
    options = {"jls_error": error} if error else {}
    return encoder.encode(
        values, rows=values.shape[0], columns=values.shape[1], samples_per_pixel=1, bits_allocated=16,
        bits_stored=precision, pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
        encoding_plugin="pyjpegls", **options,
    )  # fmt: skip


def jpeg_lossless(values: np.ndarray, precision: int) -> bytes:
    return bytes(codecs.ljpeg_encode(values, bitspersample=precision))


def rle(values: np.ndarray, _: int = 16) -> bytes:
    return RLELosslessEncoder.encode(
        words(values), rows=values.shape[0], columns=values.shape[1], samples_per_pixel=1, bits_allocated=16,
        bits_stored=16, pixel_representation=0, photometric_interpretation="MONOCHROME2", number_of_frames=1,
        encoding_plugin="pydicom",
    )  # fmt: skip


def deflated(content: bytes) -> bytes:
    import zlib

    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


ENCODERS: dict[UID, Callable[[np.ndarray, int], bytes]] = {
    JPEG2000Lossless: jpeg_2000,
    UID("1.2.840.10008.1.2.4.91"): jpeg_2000,
    JPEGLSLossless: jpeg_ls,
    JPEGLSNearLossless: lambda values, precision: jpeg_ls(values, precision, error=1),
    JPEGLossless: jpeg_lossless,
    RLELossless: rle,
    DEFLATED_FRAMES: lambda values, _: deflated(words(values)),
    ENCAPSULATED: lambda values, _: words(values),
}
"""Encapsulated transfer syntaxes, and what encodes an array of unsigned or (JPEG 2000) signed 16-bit words."""
PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def put(data: Dataset, frame: bytes, syntax: UID) -> None:
    """Give a data set one frame in a transfer syntax; see ``mark_deflated`` for deflated frames."""
    data.file_meta.TransferSyntaxUID = ENCAPSULATED if syntax == DEFLATED_FRAMES else syntax
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True


def mark_deflated(files: list[Path]) -> list[Path]:
    """Name the transfer syntax of deflated frames: pydicom does not write what it does not know."""
    for file in files:
        content = file.read_bytes()
        assert content.count(ENCAPSULATED.encode()) == 1
        file.write_bytes(content.replace(ENCAPSULATED.encode(), DEFLATED_FRAMES.encode() + b"\0"))
    return files
