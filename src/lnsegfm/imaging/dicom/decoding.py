"""Frames out of pixel data, by the library that survives damage."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
)

from lnsegfm.imaging.dicom.values import integer

_NO_SIZE = (0xC4, 0xC8, 0xCC)  # Huffman tables and the like: between the frame headers C0 to CF, and none


def decode_frame(data: Dataset, syntax: UID, index: int) -> np.ndarray:
    """One frame of pixel data, as it is stored.

    Raises:
        Exception: Whatever a decoder raises at damaged data; NotImplementedError where there is no decoder.
    """
    decoder = get_decoder(syntax)
    if syntax in (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes):
        # decoders take memory for the size within, and GDCM ends the process where it is not the header's
        frames = integer(data, "NumberOfFrames") or 1
        offsets = (data.get("ExtendedOffsetTable"), data.get("ExtendedOffsetTableLengths"))
        stated = (offsets[0], offsets[1]) if None not in offsets else None
        within = encoded_size(get_frame(data.PixelData, index, number_of_frames=frames, extended_offsets=stated))
        header = (integer(data, "Rows"), integer(data, "Columns"))
        if within != header:
            raise ValueError(f"{within} pixels within, {header} in its header")
    # pyjpegls raises at damaged JPEG-LS, where GDCM has been seen to end the process
    plugin = "pyjpegls" if syntax in JPEGLSTransferSyntaxes and "pyjpegls" in decoder.available_plugins else ""
    return np.asarray(decoder.as_array(data, index=index, raw=True, decoding_plugin=plugin)[0])


def encoded_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns that a frame of JPEG, JPEG-LS or JPEG 2000 states; None where it states none.

    Sources: ISO 10918-1 B.2.2 (SOF), ISO 14495-1 C.2.2 (SOF55), ISO 15444-1 A.5.1 (SIZ).
    """
    siz = frame.find(b"\xff\x4f\xff\x51", 0, 1024)
    if siz >= 0 and len(frame) >= siz + 24:
        columns, rows, left, top = (int.from_bytes(frame[siz + k : siz + k + 4], "big") for k in (8, 12, 16, 20))
        return rows - top, columns - left
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_SIZE):
            return int.from_bytes(frame[at + 5 : at + 7], "big"), int.from_bytes(frame[at + 7 : at + 9], "big")
        else:
            at += 2 + max(int.from_bytes(frame[at + 2 : at + 4], "big"), 2)
    return None
