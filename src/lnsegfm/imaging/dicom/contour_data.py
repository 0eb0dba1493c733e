"""The points of one contour as a file holds them (ContourData), read without trust."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from lnsegfm.imaging.dicom.structure_set import CLOSED_TYPES, XOR_TYPE, ImageOfSeries
from lnsegfm.imaging.dicom.values import integer, text, value_of

_FARTHEST_MM = 1e5  # no patient is a hundred metres away
_CONTOUR_DATA, _COUNT, _IMAGES = 0x30060050, 0x30060046, 0x30060016
_INSTANCE, _FRAME = b"\x08\x00\x55\x11", b"\x08\x00\x60\x11"  # ReferencedSOPInstanceUID, ReferencedFrameNumber
_SPELLED = {"CLOSEDPLANAR": CLOSED_TYPES[0], "CLOSEDPLANARXOR": XOR_TYPE}


@dataclass(frozen=True)
class ContourPoints:
    """The points of a contour.

    Args:
        points_mm: (n, 3) as (x, y, z), LPS; none where something is wrong.
        wrong: What is wrong with them, a clause; empty where they can be used.
        odd: What is odd about them and changes nothing, a clause; empty where there is nothing.
    """

    points_mm: np.ndarray = field(repr=False)
    wrong: str = ""
    odd: str = ""


def read_points(contour: Dataset) -> ContourPoints:
    """The points of a contour. Empty values among them are passed over where the number of coordinates stays right."""
    none = np.empty((0, 3))
    element = contour.get_item(_CONTOUR_DATA)
    value = element.value if element is not None else None
    if value is None or len(value) == 0:
        return ContourPoints(none)
    # the bytes of the file: pydicom would make an object of each number
    words: list[Any] = value.rstrip(b"\0 ").split(b"\\") if isinstance(value, bytes) else _words(value)
    stated = _stated(contour)
    odd = ""
    try:
        numbers = np.array([float(word) for word in words])
    except (TypeError, ValueError):
        written = [word for word in words if not _is_blank(word)]
        if not _may_be_left_out(words, written, stated):
            return ContourPoints(none, "holds something that is no number")
        try:
            numbers = np.array([float(word) for word in written])
        except (TypeError, ValueError):
            return ContourPoints(none, "holds something that is no number")
        odd = "hold empty values"
    if not np.isfinite(numbers).all() or np.abs(numbers).max(initial=0) > _FARTHEST_MM:
        wrong = numbers[~(np.abs(numbers) <= _FARTHEST_MM)][0]
        return ContourPoints(none, f"has a coordinate of {wrong:g} mm")
    if len(numbers) % 3:
        return ContourPoints(none, f"has {len(numbers)} coordinates, which are not three for each point")
    if stated is not None and stated * 3 != len(numbers):
        odd = odd or "state another number of points than they have"
    return ContourPoints(numbers.reshape(-1, 3), odd=odd)


def _stated(contour: Dataset) -> int | None:
    """NumberOfContourPoints; None where there is none."""
    element = contour.get_item(_COUNT)
    if element is not None and isinstance(element.value, bytes):
        number = element.value.strip(b"\0 ")
        return int(number) if number.isdigit() else None
    return integer(contour, "NumberOfContourPoints")


def _words(value: Any) -> list[Any]:
    if isinstance(value, str):
        return value.rstrip("\0 ").split("\\")
    return list(value) if isinstance(value, Iterable) else [value]


def _is_blank(word: Any) -> bool:
    return word is None or (isinstance(word, bytes | str) and not word.strip())


def _may_be_left_out(words: list[Any], written: list[Any], stated: int | None) -> bool:
    """Whether the empty values among words can be passed over: the rest is what is stated, or they stand at the end."""
    if len(written) % 3 or len(written) == len(words):
        return False
    at_end = all(_is_blank(word) for word in words[len(written) :])
    return stated == len(written) // 3 or (at_end and not any(_is_blank(word) for word in words[: len(written)]))


def geometric_type(contour: Dataset) -> str:
    """ContourGeometricType in DICOM's spelling; empty where there is none."""
    given = text(contour, "ContourGeometricType").upper()
    return _SPELLED.get("".join(c for c in given if c.isalpha()), given)


def image_of(contour: Dataset) -> ImageOfSeries | None:
    """The image that a contour says it was drawn on; None where it names none, or several."""
    element = contour.get_item(_IMAGES)
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        quick = _image_in(element.value)
        if quick is not None:
            return quick
    items = value_of(contour, "ContourImageSequence")
    images = [item for item in items if isinstance(item, Dataset)] if isinstance(items, Iterable) else []
    if len(images) != 1 or not (uid := text(images[0], "ReferencedSOPInstanceUID")):
        return None
    return uid, max((integer(images[0], "ReferencedFrameNumber") or 1) - 1, 0)


def _image_in(value: bytes) -> ImageOfSeries | None:
    """The image in the bytes of a sequence, little endian; None where they need parsing.

    Parsing takes as long as reading the points, and there are tens of thousands of contours in a structure set.
    """
    if value.count(_INSTANCE) != 1 or _FRAME in value:
        return None
    start = value.index(_INSTANCE) + len(_INSTANCE)
    explicit = value[start : start + 2] == b"UI"
    size = value[start + 2 : start + 4] if explicit else value[start : start + 4]
    uid = value[start + 4 : start + 4 + int.from_bytes(size, "little")].rstrip(b"\0 ")
    return (uid.decode("ascii"), 0) if uid and not uid.strip(b"0123456789.") else None
