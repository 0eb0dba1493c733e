"""Stored values of an image's frames, or one line that says why there are none."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, ImplicitVRLittleEndian

from lnsegfm.imaging.dicom.decoder_process import decoding_fault
from lnsegfm.imaging.dicom.decoding import DEFLATED_FRAMES, ENCAPSULATED, Rescale, decode_frame
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.transfer_syntaxes import not_readable
from lnsegfm.imaging.dicom.values import integer, quiet, text

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_PACKED = 12  # two values in three bytes: ACR-NEMA, and DICOM until 2014


def stored_frame(data: Dataset, which: str, index: int, rescale: Rescale | None) -> np.ndarray:
    """The stored values of a frame, (rows, columns).

    Args:
        data: A data set with its pixels.
        which: What a message calls it.
        index: Of the frame, from 0.
        rescale: Of a CT: stored values to HU.

    Raises:
        DicomError: No pixels, bits or a transfer syntax that are not read, or pixels that do not decode.
    """
    meta = getattr(data, "file_meta", None) or Dataset()
    with quiet():
        syntax = UID(text(meta, "TransferSyntaxUID") or ImplicitVRLittleEndian)
    keyword = next((keyword for keyword in PIXEL_KEYWORDS if keyword in data), None)
    if keyword is None:
        raise DicomError(f"{which} has no pixels. Export or copy it again.")
    require_readable(syntax, which)
    if keyword == "PixelData":
        _require_plain_bits(data, which)
        if integer(data, "BitsAllocated") == _PACKED:
            return _packed(data, syntax, which, index)
    try:
        with quiet():
            return decode_frame(data, syntax, index, rescale)
    except Exception as error:  # the decoders are C libraries behind plugins, and raise as they like
        why = f"{syntax.name}; {decoding_fault(error)}"
        raise DicomError(f"{which} cannot be decoded ({why}). Export it again, uncompressed.") from None


def _require_plain_bits(data: Dataset, which: str) -> None:
    allocated, stored, high = (integer(data, k) for k in ("BitsAllocated", "BitsStored", "HighBit"))
    if stored is not None and high is not None and high != stored - 1:
        raise DicomError(f"{which} keeps its values in unusual bits (HighBit {high} of {stored}). Export it again.")
    if allocated not in (8, _PACKED, 16, 32):
        raise DicomError(f"{which} has {allocated} bits a pixel, and 8, 12, 16 and 32 can be read. Export it again.")
    if stored is not None and not 1 <= stored <= allocated:
        raise DicomError(f"{which} keeps its values in {stored} bits of {allocated}. Export it again.")


def require_readable(syntax: UID, which: str) -> None:
    """Refuse a transfer syntax that is not read, by its name.

    Args:
        syntax: TransferSyntaxUID.
        which: What a message calls the file.

    Raises:
        DicomError: No image, private, unknown, or compressed in a way that no decoder is there for.
    """
    if syntax in (DEFLATED_FRAMES, ENCAPSULATED):
        return
    try:
        with quiet():
            available = get_decoder(syntax).is_available
    except NotImplementedError:
        available = False
    if not available:
        raise DicomError(not_readable(syntax, which))


def _packed(data: Dataset, syntax: UID, which: str, index: int) -> np.ndarray:
    rows, columns, frames = (integer(data, k) or 1 for k in ("Rows", "Columns", "NumberOfFrames"))
    size, content = rows * columns, data.PixelData
    needed = (size * frames * _PACKED + 7) // 8
    if syntax.is_encapsulated or not syntax.is_little_endian or not needed <= len(content) <= needed + 1 or size % 2:
        what = f"{len(content)} bytes where {needed} are needed"
        raise DicomError(f"{which} has {_PACKED} bits a pixel and {what}. Export it again with 16 bits.")
    # the first value has the low byte and the low half of the middle one
    triples = np.frombuffer(content, np.uint8, size * 3 // 2, index * size * 3 // 2).reshape(-1, 3).astype(np.uint16)
    values = np.stack([triples[:, 0] | (triples[:, 1] & 15) << 8, triples[:, 1] >> 4 | triples[:, 2] << 4], axis=1)
    if integer(data, "PixelRepresentation") == 1:
        values = (values << 4).view(np.int16) >> 4
    return values.reshape(rows, columns)
