"""The header of a NIfTI-1 or NIfTI-2 file, as it is stored.

Sources: nifti1.h and nifti2.h of the NIfTI data format (https://nifti.nimh.nih.gov). Transforms are in RAS, as there.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

_SIZES = {348: 1, 540: 2}
"""Bytes of the header by version; they are its first number."""
_MILLIMETRES = {1: 1e3, 3: 1e-3}
"""Of the units of space other than millimetres: metres, micrometres."""


@dataclass(frozen=True)
class _Layout:
    """Where the fields lie, and how long their numbers are."""

    dimensions: tuple[str, int]
    kind: int
    steps: tuple[str, int]
    offset: tuple[str, int]
    codes: tuple[str, int]
    quaternion: tuple[str, int]
    matrix: tuple[str, int]
    units: tuple[str, int]


_LAYOUTS = {
    1: _Layout(("8h", 40), 70, ("4f", 76), ("f", 108), ("2h", 252), ("6f", 256), ("12f", 280), ("b", 123)),
    2: _Layout(("8q", 16), 12, ("4d", 104), ("q", 168), ("2i", 344), ("6d", 352), ("12d", 400), ("i", 500)),
}


@dataclass(frozen=True)
class NiftiHeader:
    """What a NIfTI states.

    Args:
        version: 1 or 2.
        order: Byte order, ``<`` or ``>``.
        dimensions: Lengths of its axes, (x, y, z, ...).
        spacing_mm: Stated distances of voxel centres (x, y, z), as they stand there: they may be 0 or negative.
        datatype: Code of the number type.
        bits: Of a number.
        offset: Bytes before the voxels.
        qform: (4, 4) index to mm, RAS, of the quaternion; None where its code is 0.
        sform: (4, 4) of the matrix; None where its code is 0.
    """

    version: int
    order: str
    dimensions: tuple[int, ...]
    spacing_mm: tuple[float, float, float]
    datatype: int
    bits: int
    offset: int
    qform: np.ndarray | None = field(repr=False)
    sform: np.ndarray | None = field(repr=False)

    @property
    def size(self) -> tuple[int, ...]:
        """The axes without those of length 1 behind the third."""
        axes = list(self.dimensions)
        while len(axes) > 3 and axes[-1] == 1:
            axes.pop()
        return tuple(axes)

    @property
    def valid_spacing(self) -> bool:
        """Whether each distance of the first three axes is a positive number."""
        return all(math.isfinite(step) and step > 0 for step in self.spacing_mm)

    def transform_gap_mm(self) -> float | None:
        """How far qform and sform put a corner of the volume from each other; None where it has not both.

        It is infinite where one of them holds numbers that are not finite.
        """
        if self.qform is None or self.sform is None:
            return None
        if not (np.isfinite(self.qform).all() and np.isfinite(self.sform).all()):
            return math.inf
        last = np.array([*(n - 1 for n in self.dimensions[:3]), 0, 0, 0][:3], float)
        corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * last
        between = self.qform - self.sform
        return float(np.linalg.norm(corners @ between[:3, :3].T + between[:3, 3], axis=1).max())

    def stretch(self) -> float:
        """By what share the distances in sform differ at most from the stated ones; 0 without sform or spacing."""
        if self.sform is None or not self.valid_spacing or not np.isfinite(self.sform).all():
            return 0.0
        lengths = np.linalg.norm(self.sform[:3, :3], axis=0)
        return float(np.abs(lengths / np.array(self.spacing_mm) - 1).max())


def open_unpacked(path: Path) -> BinaryIO:
    """A file, unpacked as it is read if its first bytes are gzip's."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast(BinaryIO, gzip.open(path, "rb")) if packed else path.open("rb")


def read_nifti_header(path: Path) -> NiftiHeader | None:
    """The header of a file whose first bytes are a NIfTI's; None for any other file, and one that ends within it.

    Raises:
        OSError: It cannot be read.
    """
    return parse_nifti_header(first_bytes(path))


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file, as many as the longest NIfTI header has; none where it does not unpack.

    Raises:
        OSError: It cannot be read.
    """
    try:
        with open_unpacked(path) as file:
            return file.read(max(_SIZES))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return b""


def parse_nifti_header(start: bytes) -> NiftiHeader | None:
    """The header in the first 540 bytes of an unpacked file (348 of a NIfTI-1); None where it is none."""
    for order in "<>":
        size = struct.unpack(order + "i", start[:4])[0] if len(start) >= 4 else 0
        if (version := _SIZES.get(size)) is not None and len(start) >= size:
            return _parsed(start, version, order)
    return None


def _parsed(start: bytes, version: int, order: str) -> NiftiHeader:
    layout = _LAYOUTS[version]

    def numbers(where: tuple[str, int]) -> tuple[float, ...]:
        return struct.unpack_from(order + where[0], start, where[1])

    count, *lengths = (int(n) for n in numbers(layout.dimensions))
    datatype, bits = struct.unpack_from(order + "2h", start, layout.kind)
    handed, *steps = numbers(layout.steps)
    scale = _MILLIMETRES.get(int(numbers(layout.units)[0]) & 7, 1.0)
    qform_code, sform_code = numbers(layout.codes)
    offset = numbers(layout.offset)[0]
    return NiftiHeader(
        version=version,
        order=order,
        dimensions=tuple(lengths[: min(max(count, 0), 7)]),
        spacing_mm=(steps[0] * scale, steps[1] * scale, steps[2] * scale),
        datatype=datatype,
        bits=bits,
        offset=int(offset) if math.isfinite(offset) else 0,
        qform=_scaled(_of_quaternion(numbers(layout.quaternion), steps, handed), scale) if qform_code > 0 else None,
        sform=_scaled(np.array(numbers(layout.matrix), float).reshape(3, 4), scale) if sform_code > 0 else None,
    )


def _of_quaternion(values: tuple[float, ...], steps: list[float], handed: float) -> np.ndarray:
    b, c, d, *offset = values
    square = 1 - b * b - c * c - d * d
    if square < 0:  # rounded: a half turn
        length = math.sqrt(b * b + c * c + d * d)
        b, c, d, square = b / length, c / length, d / length, 0.0
    a = math.sqrt(square)
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    along = np.array([steps[0], steps[1], steps[2] * (-1 if handed < 0 else 1)], float)
    with np.errstate(invalid="ignore"):  # infinity times 0
        turn = turn * along
    return np.concatenate([turn, np.array(offset, float)[:, None]], axis=1)


def _scaled(rows: np.ndarray, scale: float) -> np.ndarray:
    return np.concatenate([rows * scale, [[0.0, 0.0, 0.0, 1.0]]])
