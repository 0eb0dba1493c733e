"""The pixels of a segmentation's frames, unpacked one frame at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from lnsegfm.imaging.dicom.decoding import decode_frame
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.values import quiet

MAX_PIXELS = 1 << 26
"""Pixels of a frame, 8192 x 8192: no CT has more, and a decoder would take memory for whatever a header claims."""


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
        DicomError: A frame too large, of bits that its kind does not have, or fewer bytes than frames need.
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
        if not self._compressed:
            needed, there = (self.frames * rows * columns * self.bits + 7) // 8, len(self.data.PixelData)
            if there < needed:
                raise self._error(f"its pixels are cut short ({there} of {needed} bytes)")

    @property
    def _compressed(self) -> bool:
        return bool(self.data.file_meta.TransferSyntaxUID.is_compressed) and not self._deflated

    @property
    def _deflated(self) -> bool:
        # the whole file is packed, not the frames: pydicom has unpacked it
        return bool(self.data.file_meta.TransferSyntaxUID.is_deflated)

    def frame(self, index: int, threshold: float) -> np.ndarray:
        """One frame: bool (rows, columns), or in a label map the segments' numbers.

        Args:
            index: Of the frame, from 0.
            threshold: Of a fractional segmentation: the part of its maximum that counts as inside.

        Raises:
            DicomError: It does not decode.
        """
        values = self._decoded(index) if self._compressed else self._native(index)
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
            big = not self.data.file_meta.TransferSyntaxUID.is_little_endian
            kind = np.dtype(f"{'>' if big else '<'}u{self.bits // 8}")
            flat = np.frombuffer(content, kind, size, first // 8).astype(kind.newbyteorder("="))
        return flat.reshape(self.shape)

    def _decoded(self, index: int) -> np.ndarray:
        try:
            with quiet():
                values = decode_frame(self.data, self.data.file_meta.TransferSyntaxUID, index)
        except Exception as error:  # decoders of four libraries raise whatever they like at damaged data
            raise self._error(f"frame {index + 1} does not decode ({type(error).__name__})") from None
        if values.shape != self.shape:
            raise self._error(f"frame {index + 1} decodes to {values.shape} pixels, not {self.shape}")
        return values

    def _error(self, what: str) -> DicomError:
        return DicomError(f"Segmentation {self.path.name}: {what}. Export or copy it again.")
