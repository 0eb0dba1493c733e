"""Frames out of pixel data, as stored values.

Stored values are the low BitsStored bits, with PixelRepresentation's sign, whatever holds them: words of an
uncompressed file, or samples of a code stream that knows nothing of signs (JPEG, JPEG-LS) or says something else
(JPEG 2000). Two exceptions, where a code stream of JPEG 2000 is to be believed:

- It is signed or unsigned as the header says: then its samples are the stored values, of whatever precision.
- It is signed and the header says unsigned, and read so the header's values could be no CT: no value for air, or one
  beyond any HU, or samples narrower than BitsStored.

GDCM reads all of it in the same way but for the second exception, where it gives a scan without air.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    UID,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)

from lnsegfm.imaging.dicom import decoder_process
from lnsegfm.imaging.dicom.code_stream import CodeStream, read_code_stream
from lnsegfm.imaging.dicom.decoder_child import FrameRequest
from lnsegfm.imaging.dicom.values import integer

DEFLATED_FRAMES = UID("1.2.840.10008.1.2.8.1")
"""Deflated Image Frame Compression (PS3.5 A.4.11): each frame packed on its own."""
ENCAPSULATED = UID("1.2.840.10008.1.2.1.98")
"""Encapsulated Uncompressed Explicit VR Little Endian."""
CODE_STREAMS = (*JPEGTransferSyntaxes, *JPEGLSTransferSyntaxes, *JPEG2000TransferSyntaxes)
"""Transfer syntaxes whose frames are decoded in a process of their own."""
HIGHEST_AIR_HU = -900.0
HIGHEST_HU = 31743.0
"""Beyond the extended scale of CT: 15 bits and an intercept of -1024."""
Rescale = Callable[[np.ndarray], np.ndarray]


def decode_frame(data: Dataset, syntax: UID, index: int, rescale: Rescale | None = None) -> np.ndarray:
    """One frame of pixel data, (rows, columns): its stored values.

    Args:
        data: A data set with its pixels.
        syntax: TransferSyntaxUID.
        index: Of the frame, from 0.
        rescale: Of a CT: stored values to HU.

    Raises:
        Exception: Whatever a decoder raises at damaged data; NotImplementedError where there is no decoder.
    """
    if syntax in CODE_STREAMS:
        return _decoded(encoded_frame(data, index), syntax, data, rescale)
    if syntax in (DEFLATED_FRAMES, ENCAPSULATED):
        return _words(data, syntax, index)
    if syntax == RLELossless:
        _require_size(encoded_frame(data, index), data)
    return np.asarray(get_decoder(syntax).as_array(data, index=index, raw=True)[0])


def encoded_frame(data: Dataset, index: int) -> bytes:
    """The bytes of an encapsulated frame: its fragments joined.

    The offset tables, extended or basic, say where frames begin where there are any.
    """
    frames = integer(data, "NumberOfFrames") or 1
    offsets = (data.get("ExtendedOffsetTable"), data.get("ExtendedOffsetTableLengths"))
    stated = (offsets[0], offsets[1]) if None not in offsets else None
    return get_frame(data.PixelData, index, number_of_frames=frames, extended_offsets=stated)


def frame_bytes(data: Dataset, syntax: UID, index: int, most: int) -> bytes:
    """The bytes of a frame that is encapsulated, unpacked where frames are deflated.

    Args:
        data: A data set with its pixels.
        syntax: TransferSyntaxUID.
        index: Of the frame, from 0.
        most: Bytes that it may unpack to.

    Raises:
        ValueError: It is damaged, cut short, or unpacks to more.
    """
    frame = encoded_frame(data, index)
    if syntax != DEFLATED_FRAMES:
        return frame
    decompressor = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content = decompressor.decompress(frame, most + 1)
    except zlib.error as error:
        raise ValueError("damaged") from error
    if not decompressor.eof:
        raise ValueError("cut short, or more than a frame")
    return content


def low_bits(values: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """The low ``bits`` of whole numbers (at most 32), with or without a sign."""
    size = 2 if bits <= 16 else 4
    words = values.astype(f"u{size}")
    words <<= 8 * size - bits
    words = words.view(f"i{size}") if signed else words
    words >>= 8 * size - bits
    return words


def _decoded(frame: bytes, syntax: UID, data: Dataset, rescale: Rescale | None) -> np.ndarray:
    stream = read_code_stream(frame)
    header = (integer(data, "Rows"), integer(data, "Columns"))
    # decoders take memory for the size within, and fill what is missing with something
    if stream is None or (stream.rows, stream.columns) != header or stream.components != 1:
        raise ValueError(f"{stream} within, {header} in its header")
    if not stream.ended:
        raise ValueError("cut short")
    request = FrameRequest(str(syntax), stream.rows, stream.columns, stream.precision, stream.signed, 0.0)
    return _stored(decoder_process.SHARED.decode(request, frame), stream, syntax, data, rescale)


def _stored(samples: np.ndarray, stream: CodeStream, syntax: UID, data: Dataset, rescale: Rescale | None) -> np.ndarray:
    bits = integer(data, "BitsStored") or integer(data, "BitsAllocated") or stream.precision
    signed = integer(data, "PixelRepresentation") == 1
    if not 1 <= bits <= 32:
        raise ValueError(f"BitsStored {bits}")
    if syntax in JPEG2000TransferSyntaxes and stream.signed == signed:
        return samples
    values = low_bits(samples, bits, signed)
    if stream.signed and rescale is not None and samples.min() < 0:
        ends = rescale(np.array([0, values.max()], values.dtype))
        if stream.precision < bits or ends.min() > HIGHEST_AIR_HU or ends.max() > HIGHEST_HU:
            return samples
    return values


def _require_size(frame: bytes, data: Dataset) -> None:
    """Refuse run lengths that are longer than what they stand for: they may unpack to 64 times their size."""
    rows, columns, allocated = (integer(data, k) or 0 for k in ("Rows", "Columns", "BitsAllocated"))
    if len(frame) > 1024 + rows * columns * allocated // 4:
        raise ValueError("more than a frame")


def _words(data: Dataset, syntax: UID, index: int) -> np.ndarray:
    rows, columns, allocated = (integer(data, k) or 0 for k in ("Rows", "Columns", "BitsAllocated"))
    if allocated not in (8, 16, 32):
        raise NotImplementedError(f"{allocated} bits")
    size = rows * columns * allocated // 8
    content = frame_bytes(data, syntax, index, most=size + 1)
    if not size <= len(content) <= size + 1:  # filled up to an even number
        raise ValueError(f"{len(content)} of {size} bytes")
    words = np.frombuffer(content, f"<u{allocated // 8}", rows * columns).reshape(rows, columns)
    return low_bits(words, integer(data, "BitsStored") or allocated, integer(data, "PixelRepresentation") == 1)
