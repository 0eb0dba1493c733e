"""Convert stored pixels to HU.

The rule, in this order, for CT:

1. Stored values are those of ``decoding``: the low BitsStored bits with PixelRepresentation's sign. What a scan looks
   like on a screen (MONOCHROME1, windows, presentation LUTs) changes none.
2. The modality LUT (ModalityLUTSequence), or else RescaleSlope and RescaleIntercept of the slice itself, gives HU.
3. Stored values from PixelPaddingValue to PixelPaddingRangeLimit are air, -1024 HU, unless their HU is one that tissue
   or metal has (-900 to 4095 HU): some exporters state a padding value that occurs in the patient too, and it is
   ignored. In pixels of floating point what is no number is padding, too.
4. Everything below -1024 HU (-2000, -3024 outside the field of view) is -1024 HU.

Other modalities are rescaled and left as they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.rescale_type import other_quantity
from lnsegfm.imaging.dicom.series_index import Series, Slice
from lnsegfm.imaging.dicom.slice_shift import shift_in_plane
from lnsegfm.imaging.dicom.stored_frames import PIXEL_KEYWORDS, stored_frame
from lnsegfm.imaging.dicom.uneven_stack import interpolated
from lnsegfm.imaging.dicom.values import first_item, group_item, integer, numbers, read_dataset, text, value_of

AIR = -1024
"""HU of what lies outside the field of view."""
TISSUE_HU = (-900.0, 4095.0)
"""HU of lung to metal: a padding value within is ignored."""
_TAGS = [
    "Modality",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "FloatPixelPaddingValue",
    "FloatPixelPaddingRangeLimit",
    "DoubleFloatPixelPaddingValue",
    "DoubleFloatPixelPaddingRangeLimit",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    *PIXEL_KEYWORDS,
]


def read_series(series: Series) -> np.ndarray:
    """Read a series as HU (z, y, x) on ``series.grid``.

    One file is in memory at a time, beside the volume.

    Returns:
        int16 where that is exact, or else float32.

    Raises:
        DicomError: A file is gone, cut short or cannot be decoded, is no longer what it was, or has no HU.
    """
    volume = np.empty(series.grid.shape, np.int16)
    planes = _planes_in_place(series)
    for k, plane in enumerate(interpolated(planes, series) if series.uneven else planes):
        if volume.dtype == np.int16 and not _fits_int16(plane):
            volume = volume.astype(np.float32)
        volume[k] = plane
    return volume


def _planes_in_place(series: Series) -> Iterator[np.ndarray]:
    """The slices in order, each with the rows and columns of the grid."""
    shape = None if series.straightened else series.grid.shape[1:]  # a straightened grid is larger than its slices
    for slice_, plane in _planes(series):
        shape = shape or plane.shape
        if plane.shape != shape:
            size = f"{plane.shape[0]} x {plane.shape[1]}"
            raise DicomError(f"File {slice_.path.name} of series {series.name} is {size} now. Find the series again.")
        if series.straightened:
            plane = shift_in_plane(plane, slice_, series.grid, fill=AIR if series.modality == "CT" else 0)
        yield plane


def pixel_digests(planes: Sequence[ImagePlane]) -> list[str]:
    """A text for each plane: the same for planes with the same values, a unique one where it cannot be read."""
    digests = [f"{plane.path} {plane.frame}" for plane in planes]
    order = sorted(range(len(planes)), key=lambda k: planes[k].path)  # a file of many frames is opened once
    for path, group in groupby(order, key=lambda k: planes[k].path):
        of_file = list(group)
        with suppress(DicomError):
            frames = _read(path, [planes[k].frame for k in of_file], planes[of_file[0]].name)
            for k, values in zip(of_file, frames, strict=True):
                digests[k] = hashlib.sha256(np.ascontiguousarray(values, np.float32).tobytes()).hexdigest()
    return digests


def hu_of_planes(planes: Sequence[ImagePlane]) -> list[np.ndarray | None]:
    """The pixels of each plane, in HU where it is CT; None where they cannot be read."""
    found: list[np.ndarray | None] = []
    for plane in planes:
        pixels = None
        with suppress(DicomError):
            pixels = next(_read(plane.path, [plane.frame], plane.name))
        found.append(pixels)
    return found


def _planes(series: Series) -> Iterator[tuple[Slice, np.ndarray]]:
    for path, slices in groupby(series.slices, key=lambda slice_: slice_.path):
        of_file = list(slices)
        yield from zip(of_file, _read(path, [slice_.frame for slice_ in of_file], series.name), strict=True)


def _read(path: Path, frames: Sequence[int | None], name: str) -> Iterator[np.ndarray]:
    """The frames of a file (None: its only one), in HU where it is CT."""
    try:
        data = read_dataset(path, _TAGS, pixels=True)
    except DicomError as error:
        raise DicomError(f"Series {name}: {error}") from None
    shared, own = first_item(data, "SharedFunctionalGroupsSequence"), value_of(data, "PerFrameFunctionalGroupsSequence")
    lut, which = first_item(data, "ModalityLUTSequence"), f"File {path.name} of series {name}"
    for frame in frames:
        group = own[frame] if own and frame is not None and frame < len(own) else None
        values = group_item(group, shared, "PixelValueTransformationSequence") or data
        if text(data, "Modality").upper() == "CT":
            transform = _linear_rescale(values, which) if lut is None else _lookup_table(lut, which)
            yield _hu(stored_frame(data, which, frame or 0, transform), data, transform)
        else:
            stored = stored_frame(data, which, frame or 0, None)
            yield _rescaled(stored, *(numbers(values, k, 1) for k in ("RescaleSlope", "RescaleIntercept")))


@dataclass(frozen=True)
class _LinearRescale:
    slope: float
    intercept: float

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        return _rescaled(stored, (self.slope,), (self.intercept,))


@dataclass(frozen=True)
class _LookupTable:
    first: int
    values: np.ndarray

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        index = np.clip(stored.astype(np.int64) - self.first, 0, len(self.values) - 1)
        return np.asarray(self.values[index])


def _linear_rescale(values: Dataset, which: str) -> _LinearRescale:
    slope, intercept = (numbers(values, k, 1) for k in ("RescaleSlope", "RescaleIntercept"))
    if slope is None or intercept is None or slope[0] == 0:
        raise DicomError(f"{which} has no HU: RescaleSlope or RescaleIntercept is missing or 0. Export it again.")
    kind = text(values, "RescaleType")
    if (meaning := other_quantity(kind)) is not None:
        raise DicomError(f"{which} holds no HU but {meaning} (RescaleType {kind.upper()}). Give the series in HU.")
    return _LinearRescale(slope[0], intercept[0])


def _lookup_table(lut: Dataset, which: str) -> _LookupTable:
    """The modality LUT: entries of 8 or 16 bit, unsigned as the standard has them (PS3.3 C.11.1)."""
    quantity = text(lut, "ModalityLUTType")
    if (meaning := other_quantity(quantity)) is not None:
        raise DicomError(
            f"{which} holds no HU but {meaning} (ModalityLUTType {quantity.upper()}). Give the series in HU."
        )
    which = f"{which}: its ModalityLUTSequence"
    descriptor, data = numbers(lut, "LUTDescriptor", 3), value_of(lut, "LUTData")
    if descriptor is None or descriptor[0] < 0 or data is None:
        raise DicomError(f"{which} lacks LUTDescriptor or LUTData. Export it again.")
    try:
        if isinstance(data, bytes):
            kind = np.dtype("u1" if descriptor[2] <= 8 else "<u2" if lut.original_encoding[1] else ">u2")
            entries = np.frombuffer(data, kind, len(data) // kind.itemsize)
        else:
            entries = np.atleast_1d(np.asarray(data, np.int32))
    except (TypeError, ValueError, OverflowError):
        raise DicomError(f"{which} holds something that is no number. Export it again.") from None
    count = int(descriptor[0]) or 1 << 16
    if len(entries) < count:
        raise DicomError(f"{which} has {len(entries)} of {count} entries. Export it again.")
    return _LookupTable(int(descriptor[1]), entries[:count].astype(np.int32))


def _hu(stored: np.ndarray, data: Dataset, transform: _LinearRescale | _LookupTable) -> np.ndarray:
    hu = transform(stored)
    outside = _padding(stored, data, transform)
    if outside is not None:
        hu[outside] = AIR
    np.maximum(hu, AIR, out=hu)
    return hu.astype(np.int16) if np.issubdtype(hu.dtype, np.integer) and _fits_int16(hu) else hu


def _padding(stored: np.ndarray, data: Dataset, transform: _LinearRescale | _LookupTable) -> np.ndarray | None:
    """Mask of the stated padding; None where none is stated, or the stated value is ignored."""
    if stored.dtype.kind == "f":
        return _float_padding(stored, data, transform)
    value = integer(data, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(data, "PixelPaddingRangeLimit")
    low, high = sorted(_as_stored(v, stored.dtype) for v in (value, value if limit is None else limit))
    if _may_be_tissue(transform(np.array([low, high], np.int64))):
        return None
    return np.asarray((stored >= low) & (stored <= high))


def _float_padding(stored: np.ndarray, data: Dataset, transform: _LinearRescale | _LookupTable) -> np.ndarray:
    """What is no number is padding as well."""
    name = "Float" if stored.dtype.itemsize == 4 else "DoubleFloat"
    outside = ~np.isfinite(stored)
    value = numbers(data, f"{name}PixelPaddingValue", 1)
    if value is not None:
        low, high = sorted((value[0], (numbers(data, f"{name}PixelPaddingRangeLimit", 1) or value)[0]))
        if not _may_be_tissue(transform(np.array([low, high], stored.dtype))):
            outside |= (stored >= low) & (stored <= high)
    return outside


def _may_be_tissue(hu: np.ndarray) -> bool:
    return bool(hu.max() > TISSUE_HU[0] and hu.min() < TISSUE_HU[1])


def _as_stored(value: int, dtype: np.dtype) -> int:
    # written with the wrong sign by many: 63536 is -2000 in 16 bit
    bits = 8 * dtype.itemsize
    value %= 1 << bits
    return value - (1 << bits) if dtype.kind == "i" and value >> (bits - 1) else value


def _rescaled(stored: np.ndarray, slope: Sequence[float] | None, intercept: Sequence[float] | None) -> np.ndarray:
    """Slope and intercept applied: int32 where both are whole numbers, or else float32."""
    by, plus = slope[0] if slope else 1.0, intercept[0] if intercept else 0.0
    if np.issubdtype(stored.dtype, np.integer) and by == int(by) and plus == int(plus):
        most = 1 << 16 if stored.dtype.itemsize <= 2 else max(abs(int(stored.min())), abs(int(stored.max())))
        if max(abs(by), 1) * most + abs(plus) < 2**31:
            return stored.astype(np.int32) * int(by) + int(plus)
    return (stored.astype(np.float64) * by + plus).astype(np.float32)


def _fits_int16(plane: np.ndarray) -> bool:
    if not np.issubdtype(plane.dtype, np.integer):
        return False
    limits = np.iinfo(np.int16)
    return plane.dtype == np.int16 or bool(plane.min() >= limits.min and plane.max() <= limits.max)
