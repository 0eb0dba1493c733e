"""RLE Lossless frames of one segment (PS3.5 annex G): those of one bit a pixel, which pydicom does not unpack."""

from __future__ import annotations

import struct

_HEADER = 64  # a count and fifteen offsets


def unpack_segment(frame: bytes, most: int) -> bytes:
    """The bytes of a frame of one segment.

    Args:
        frame: The frame.
        most: Bytes that it may unpack to.

    Raises:
        ValueError: Not one segment, or damaged: it ends within a run or unpacks to more.
    """
    if len(frame) < _HEADER:
        raise ValueError("no header")
    count, start = struct.unpack_from("<2I", frame)
    if count != 1 or not _HEADER <= start <= len(frame):
        raise ValueError(f"{count} segments, the first at {start}")
    content, at = bytearray(), start
    while at < len(frame) and len(content) < most:
        code = frame[at]
        if code == 128:  # nothing; writers fill up with it
            at += 1
        elif code < 128:
            literal = frame[at + 1 : at + 2 + code]
            if len(literal) < code + 1:
                break  # a NUL that fills the frame up to an even number begins no run
            content += literal
            at += 2 + code
        else:
            content += frame[at + 1 : at + 2] * (257 - code)
            at += 2
    if len(content) > most:
        raise ValueError("more than a frame")
    return bytes(content)
