"""Read RT Structure Sets (DICOM PS3.3 A.19)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import RTStructureSetStorage

from lnsegfm.imaging.dicom.contour_data import geometric_type, image_of, read_points
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.headers import is_dicom
from lnsegfm.imaging.dicom.structure_set import CLOSED_TYPES, Contour, Roi, StructureSet
from lnsegfm.imaging.dicom.values import integer, quiet, read_dataset, text, value_of

_SHOWN = 10  # numbers that a line lists


def read_rtstruct(path: Path) -> StructureSet:
    """Read a structure set.

    A structure one of whose closed contours is damaged keeps the others and says so in ``damage``: it is refused when
    its voxels are asked for, the other structures are not. So are those that share a number, unless they are copies of
    one structure.

    Raises:
        DicomError: Not a DICOM file, not a structure set, or without a structure.
    """
    with quiet():
        return _structure_set(path, _read_checked(path))


def _structure_set(path: Path, data: Dataset) -> StructureSet:
    notes: list[str] = []
    frames = _items(data, "ReferencedFrameOfReferenceSequence")
    items = _numbered(data, notes)
    contours = _contours_by_roi(data, notes)
    named = {integer(item, "ROINumber") for item in items}
    nameless = [n for n in contours if n not in named]
    kept = _with_numbers_of_their_own([_roi(item, contours, nameless) for item in items])
    if not kept:
        raise DicomError(f"{path}: a structure set without a structure. Export it again with its contours.")
    notes += [note for roi in kept for note in roi.notes]
    notes += [f"Contours of number {n}: the structure set names no such structure: passed over." for n in nameless]
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


def _numbered(data: Dataset, notes: list[str]) -> list[Dataset]:
    """The structures that have a number."""
    items = _items(data, "StructureSetROISequence")
    notes += [
        f"Structure {text(item, 'ROIName')!r}: it has no number, so no contours: passed over."
        for item in items
        if integer(item, "ROINumber") is None
    ]
    return [item for item in items if integer(item, "ROINumber") is not None]


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


def _with_numbers_of_their_own(rois: Sequence[Roi]) -> tuple[Roi, ...]:
    """Structures of which no two have one number: copies are one, others cannot be told apart and are damaged."""
    counts = Counter(roi.number for roi in rois)
    if max(counts.values(), default=0) < 2:
        return tuple(rois)
    names: dict[int, set[str]] = {}
    for roi in rois:
        names.setdefault(roi.number, set()).add(roi.name)
    kept: dict[tuple[int, str], Roi] = {}
    for roi in rois:
        if counts[roi.number] < 2:
            kept[roi.number, roi.name] = roi
        elif len(names[roi.number]) == 1:
            line = f"Structure {roi.name!r}: listed {counts[roi.number]} times under number {roi.number}: read once."
            kept.setdefault((roi.number, roi.name), replace(roi, notes=(*roi.notes, line)))
        else:
            why = f"several structures have number {roi.number}: whose contours are whose cannot be told"
            damage = f"Structure {roi.name!r}: {why}. Export it again, or leave this structure out."
            kept.setdefault((roi.number, roi.name), replace(roi, damage=damage, contours=()))
    return tuple(kept.values())


def _roi(item: Dataset, by_roi: dict[int, list[Dataset]], nameless: Sequence[int]) -> Roi:
    number, name = integer(item, "ROINumber") or 0, text(item, "ROIName")
    contours, damage, empty, odd = [], [], 0, Counter[str]()
    stored = by_roi.get(number, ())
    for place, contour in enumerate(stored, start=1):
        kind, read = geometric_type(contour), read_points(contour)
        points = read.points_mm
        if read.wrong and (kind in CLOSED_TYPES or not kind):
            damage.append(f"contour {place} {read.wrong}")
        elif not read.wrong and not len(points):
            empty += 1
        elif not read.wrong:
            if not kind and len(points) >= 3:
                kind = CLOSED_TYPES[0]
                odd["have no ContourGeometricType: read as closed"] += 1
            if read.odd:
                odd[f"{read.odd}: read by what they hold"] += 1
            contours.append(Contour(points, kind, image_of(contour)))
    notes = [f"Structure {name!r}: {n} of {len(stored)} contours {what}." for what, n in odd.items()]
    if number not in by_roi:
        notes.append(f"Structure {name!r}: no contours were stored for it.")
    if empty:
        notes.append(f"Structure {name!r}: {empty} contours are empty: passed over.")
    why = ""
    if damage:
        more = f" (and {len(damage) - 1} more)" if len(damage) > 1 else ""
        why = f"Structure {name!r}: {damage[0]}{more}. Export it again, or leave this structure out."
    return Roi(
        number=number,
        name=name,
        contours=tuple(contours),
        frame_of_reference_uid=text(item, "ReferencedFrameOfReferenceUID"),
        damage=why,
        notes=tuple(notes),
        no_contours="" if contours else _why_without_contours(number, bool(stored), nameless),
    )


def _why_without_contours(number: int, empty: bool, nameless: Sequence[int]) -> str:
    if empty:
        return "its contours have no points"
    if not nameless:
        return "nothing was drawn for it"
    more = ", ..." if len(nameless) > _SHOWN else ""
    others = ", ".join(map(str, nameless[:_SHOWN])) + more
    return f"it has number {number}, and the file holds contours of number {others}, which no structure has"


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
