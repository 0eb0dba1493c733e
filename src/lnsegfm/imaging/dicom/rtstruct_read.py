"""Read RT Structure Sets (DICOM PS3.3 A.19)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.headers import is_dicom
from lnsegfm.imaging.dicom.structure_set import CLOSED_TYPES, Contour, Roi, StructureSet
from lnsegfm.imaging.dicom.values import integer, quiet, read_dataset, text, value_of

_FARTHEST_MM = 1e5  # no patient is a hundred metres away
_CONTOUR_DATA = 0x30060050


def read_rtstruct(path: Path) -> StructureSet:
    """Read a structure set.

    A structure one of whose closed contours is damaged keeps the others and says so in ``damage``: it is refused when
    its voxels are asked for, the other structures are not.

    Raises:
        DicomError: Not a DICOM file, not a structure set, without a structure, or with two of one number.
    """
    with quiet():
        return _structure_set(path, _read_checked(path))


def _structure_set(path: Path, data: Dataset) -> StructureSet:
    notes: list[str] = []
    frames = _items(data, "ReferencedFrameOfReferenceSequence")
    contours = _contours_by_roi(data, notes)
    rois = [_roi(item, contours, notes) for item in _items(data, "StructureSetROISequence")]
    kept = tuple(roi for roi in rois if roi is not None)
    if not kept:
        raise DicomError(f"{path}: a structure set without a structure. Export it again with its contours.")
    numbers = [roi.number for roi in kept]
    if repeated := sorted(n for n, count in Counter(numbers).items() if count > 1):
        shown = ", ".join(map(str, repeated[:10])) + (", ..." if len(repeated) > 10 else "")
        raise DicomError(
            f"{path}: several structures have number {shown}: whose contours are whose cannot be told. Export it again."
        )
    named = set(numbers)
    notes += [
        f"Contours of number {n}: the structure set names no such structure: passed over."
        for n in contours
        if n not in named
    ]
    stated = [text(item, "FrameOfReferenceUID") for item in frames]
    own = [roi.frame_of_reference_uid for roi in kept if roi.frame_of_reference_uid]
    uids = [uid for uid in (*own, *stated, text(data, "FrameOfReferenceUID")) if uid]
    if not own and len(set(stated)) > 1:
        notes.append(f"Structures of {len(set(stated))} frames of reference, and none says which is its own.")
    return StructureSet(uids[0] if uids else "", _series(frames), kept, text(data, "StructureSetLabel"), tuple(notes))


def _read_checked(path: Path) -> Dataset:
    if not path.is_file():
        raise DicomError(f"{path}: no such file. Check the path.")
    if not is_dicom(path):
        raise DicomError(f"{path}: not a DICOM file. Give an RTSTRUCT file.")
    data = read_dataset(path)
    storage, modality = text(data, "SOPClassUID"), text(data, "Modality")
    if storage != RTStructureSetStorage and not (not storage and modality == "RTSTRUCT"):
        raise DicomError(f"{path}: not a structure set (modality {modality or 'unknown'}). Give an RTSTRUCT file.")
    return data


def _contours_by_roi(data: Dataset, notes: list[str]) -> dict[int, list[Dataset]]:
    """The items of contours by the number of their structure."""
    contours: dict[int, list[Dataset]] = {}
    for item in _items(data, "ROIContourSequence"):
        number = integer(item, "ReferencedROINumber")
        if number is None:
            notes.append("Contours that name no structure: passed over.")
            continue
        contours.setdefault(number, []).extend(_items(item, "ContourSequence"))
    return contours


def _roi(item: Dataset, by_roi: dict[int, list[Dataset]], notes: list[str]) -> Roi | None:
    number, name = integer(item, "ROINumber"), text(item, "ROIName")
    if number is None:
        notes.append(f"Structure {name!r}: it has no number, so no contours: passed over.")
        return None
    if number not in by_roi:
        notes.append(f"Structure {name!r}: no contours were stored for it.")
    contours, damage, empty = [], [], 0
    for place, contour in enumerate(by_roi.get(number, ()), start=1):
        kind = text(contour, "ContourGeometricType").upper()
        points, wrong = _points(contour)
        if wrong and (kind in CLOSED_TYPES or not kind):
            damage.append(f"contour {place} {wrong}")
        elif not wrong and not len(points):
            empty += 1
        elif not wrong:
            contours.append(Contour(points, kind))
    if empty:
        notes.append(f"Structure {name!r}: {empty} contours are empty: passed over.")
    why = ""
    if damage:
        more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
        why = f"Structure {name!r}: {damage[0]}{more}. Export it again, or leave this structure out."
    return Roi(number, name, tuple(contours), text(item, "ReferencedFrameOfReferenceUID"), why)


def _points(contour: Dataset) -> tuple[np.ndarray, str]:
    """Points (n, 3) and what is wrong with them."""
    none = np.empty((0, 3))
    element = contour.get_item(_CONTOUR_DATA)
    value = element.value if element is not None else None
    if value is None or len(value) == 0:
        return none, ""
    # the bytes of the file: pydicom would make an object of each number
    words: Iterable[Any] = value.rstrip(b"\0 ").split(b"\\") if isinstance(value, bytes) else value
    try:
        numbers = np.array([float(word) for word in words])
    except (TypeError, ValueError):
        return none, "holds something that is no number"
    if not np.isfinite(numbers).all() or np.abs(numbers).max(initial=0) > _FARTHEST_MM:
        wrong = numbers[~(np.abs(numbers) <= _FARTHEST_MM)][0]
        return none, f"has a coordinate of {wrong:g} mm"
    if len(numbers) % 3:
        return none, f"has {len(numbers)} coordinates, which are not three for each point"
    return numbers.reshape(-1, 3), ""


def _series(frames: Iterable[Dataset]) -> tuple[str, ...]:
    uids = [
        text(series, "SeriesInstanceUID")
        for frame in frames
        for study in _items(frame, "RTReferencedStudySequence")
        for series in _items(study, "RTReferencedSeriesSequence")
    ]
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _items(data: Dataset, keyword: str) -> list[Dataset]:
    items = value_of(data, keyword)
    return [item for item in items if isinstance(item, Dataset)] if isinstance(items, Iterable) else []
