"""The pixels of a segmentation's frames, unpacked one frame at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from lnsegfm.imaging.dicom.decoder_process import decoding_fault
from lnsegfm.imaging.dicom.decoding import DEFLATED_FRAMES, ENCAPSULATED, decode_frame, encoded_frame, frame_bytes
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.run_length import unpack_segment
from lnsegfm.imaging.dicom.stored_frames import require_readable
from lnsegfm.imaging.dicom.values import quiet, text

MAX_PIXELS = 1 << 26
"""Pixels of a frame, 8192 x 8192: no CT has more, and a decoder would take memory for whatever a header claims."""

# of a deflated file the whole is packed, not its frames: pydicom has unpacked it
_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


@dataclass(frozen=True)
class Pixels:
    """Packed frames, all of one size.

    Args:
        path: The file, for messages.
        kind: BINARY, FRACTIONAL or LABELMAP.
        shape: Rows and columns.
        bits: Allocated for a pixel: 1, 8 or 16.
        maximum: MaximumFractionalValue of a fractional segmentation.
        data: The data set with its PixelData.

    Raises:
        DicomError: A frame too large, of bits that its kind does not have, a transfer syntax that is not read, or fewer
            bytes than frames need.
    """

    path: Path
    kind: str
    shape: tuple[int, int]
    bits: int
    maximum: int
    frames: int
    data: Dataset = field(repr=False)

    def __post_init__(self) -> None:
        rows, columns = self.shape
        if min(self.shape) < 1 or rows * columns > MAX_PIXELS:
            raise self._error(f"frames of {rows} x {columns} pixels are no slices of a scan")
        if self.bits not in {"BINARY": (1, 8), "FRACTIONAL": (8,), "LABELMAP": (8, 16)}[self.kind]:
            raise self._error(f"{self.bits} bits a pixel are not what a {self.kind} segmentation has")
        if self.kind == "FRACTIONAL" and not 1 <= self.maximum <= 255:
            raise self._error(f"MaximumFractionalValue is {self.maximum}, not 1 to 255")
        if self._syntax not in _NATIVE:
            require_readable(self._syntax, f"Segmentation {self.path.name}")
            return
        needed, there = (self.frames * rows * columns * self.bits + 7) // 8, len(self.data.PixelData)
        if there < needed:
            raise self._error(f"its pixels are cut short ({there} of {needed} bytes)")

    @property
    def _syntax(self) -> UID:
        with quiet():
            return UID(text(self.data.file_meta, "TransferSyntaxUID") or ImplicitVRLittleEndian)

    def frame(self, index: int, threshold: float) -> np.ndarray:
        """One frame: bool (rows, columns), or in a label map the segments' numbers.

        Args:
            index: Of the frame, from 0.
            threshold: Of a fractional segmentation: the part of its maximum that counts as inside.

        Raises:
            DicomError: It does not decode.
        """
        values = self._native(index) if self._syntax in _NATIVE else self._decoded(index)
        if self.kind == "LABELMAP":
            return values
        if self.kind == "FRACTIONAL":
            return (values >= threshold * self.maximum) & (values > 0)
        return values != 0

    def _native(self, index: int) -> np.ndarray:
        size, content = self.shape[0] * self.shape[1], self.data.PixelData
        first = index * size * self.bits  # frames follow each other bit by bit, without filling up to a byte
        if self.bits == 1:
            packed = np.frombuffer(content, np.uint8, (first % 8 + size + 7) // 8, first // 8)
            flat = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + size]
        else:
            big = self._syntax == ExplicitVRBigEndian
            kind = np.dtype(f"{'>' if big else '<'}u{self.bits // 8}")
            flat = np.frombuffer(content, kind, size, first // 8).astype(kind.newbyteorder("="))
        return flat.reshape(self.shape)

    def _decoded(self, index: int) -> np.ndarray:
        bitwise = self.bits == 1 and self._syntax in (RLELossless, DEFLATED_FRAMES, ENCAPSULATED)
        try:
            with quiet():
                values = self._bits(index) if bitwise else decode_frame(self.data, self._syntax, index)
        except Exception as error:  # decoders of four libraries raise whatever they like at damaged data
            raise self._error(f"frame {index + 1} does not decode ({decoding_fault(error)})") from None
        if values.shape != self.shape:
            raise self._error(f"frame {index + 1} decodes to {values.shape} pixels, not {self.shape}")
        return values

    def _bits(self, index: int) -> np.ndarray:
        """A frame of one bit a pixel: eight in a byte from the low bit on, or each in a byte of its own."""
        size = self.shape[0] * self.shape[1]
        packed = (size + 7) // 8
        if self._syntax == RLELossless:
            content = unpack_segment(encoded_frame(self.data, index), size + 1)
        else:
            content = frame_bytes(self.data, self._syntax, index, most=size + 1)
        if len(content) in (packed, packed + packed % 2):
            flat = np.unpackbits(np.frombuffer(content, np.uint8), bitorder="little", count=size)
        elif len(content) in (size, size + size % 2):
            flat = np.frombuffer(content, np.uint8, size)
        else:
            raise ValueError(f"{len(content)} bytes for {size} pixels")
        return flat.reshape(self.shape)

    def _error(self, what: str) -> DicomError:
        return DicomError(f"Segmentation {self.path.name}: {what}. Export or copy it again.")
