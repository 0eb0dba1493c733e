"""What a frame of JPEG, JPEG-LS or JPEG 2000 says of itself, before a decoder sees it.

Sources: ISO 10918-1 B.2.2 (SOF), ISO 14495-1 C.2.2 (SOF55), ISO 15444-1 A.5.1 (SIZ).
"""

from __future__ import annotations

from dataclasses import dataclass

_NO_SIZE = (0xC4, 0xC8, 0xCC)  # Huffman tables and the like: between the frame headers C0 to CF, and none
_END = b"\xff\xd9"  # end of image in JPEG and JPEG-LS, end of code stream in JPEG 2000; no data holds it


@dataclass(frozen=True)
class CodeStream:
    """The header of a compressed frame.

    Args:
        rows: Rows.
        columns: Columns.
        precision: Bits of a sample.
        signed: Samples are below zero too; only JPEG 2000 says so.
        components: Samples a pixel.
        ended: Its end marker is there.
    """

    rows: int
    columns: int
    precision: int
    signed: bool
    components: int
    ended: bool


def read_code_stream(frame: bytes) -> CodeStream | None:
    """The header of a frame of JPEG, JPEG-LS or JPEG 2000; None where it has none."""
    siz = frame.find(b"\xff\x4f\xff\x51", 0, 1024)
    if siz >= 0:
        return _jpeg_2000(frame, siz)
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == 0xFF:  # filling
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in _NO_SIZE):
            rows, columns = (int.from_bytes(frame[at + k : at + k + 2], "big") for k in (5, 7))
            return CodeStream(rows, columns, frame[at + 4], False, frame[at + 9], frame.rfind(_END, at) >= 0)
        else:
            at += 2 + max(int.from_bytes(frame[at + 2 : at + 4], "big"), 2)
    return None


def _jpeg_2000(frame: bytes, siz: int) -> CodeStream | None:
    if len(frame) < siz + 43:
        return None
    columns, rows, left, top = (int.from_bytes(frame[siz + k : siz + k + 4], "big") for k in (8, 12, 16, 20))
    components, sample = int.from_bytes(frame[siz + 40 : siz + 42], "big"), frame[siz + 42]
    precision, signed = (sample & 0x7F) + 1, bool(sample & 0x80)
    return CodeStream(rows - top, columns - left, precision, signed, components, frame.rfind(_END, siz) >= 0)
