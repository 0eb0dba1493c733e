"""Structures added to a structure set, as a new instance that refers to the one before.

All that the earlier one holds is kept as it stands, byte for byte and in its own transfer syntax: structures, contours,
colours and observations, patient, study and equipment. New are the instance, its series, and at the end the structures
that are added. The earlier file is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.file_walk import files_under
from lnsegfm.imaging.dicom.headers import is_dicom
from lnsegfm.imaging.dicom.rtstruct_header import new_uid, stamp_series
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.series_index import Series
from lnsegfm.imaging.dicom.series_numbers import ADDED, number_after
from lnsegfm.imaging.dicom.structure_set import StructureSet, mismatch
from lnsegfm.imaging.dicom.values import integer, quiet, read_dataset, text, value_of

KEPT = (
    "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
    "ROIContourSequence",
    "RTROIObservationsSequence",
)
"""What is the same in both files; the last three get items at their end."""
_OF_AN_APPROVAL = ("ReviewDate", "ReviewTime", "ReviewerName", "MACParametersSequence", "DigitalSignaturesSequence")
_UTF_8 = "ISO_IR 192"
_MOST_TEXT = 1024


@dataclass(frozen=True)
class Predecessor:
    """The structure set that structures are added to.

    Args:
        path: Its file.
        data: Its content.
        structures: What our reader makes of it.
    """

    path: Path
    data: Dataset = field(repr=False)
    structures: StructureSet = field(repr=False)

    @property
    def next_number(self) -> int:
        """The first ROINumber that is free, and those after it."""
        return max(max((roi.number for roi in self.structures.rois), default=0), 0) + 1

    @property
    def next_observation(self) -> int:
        """The first ObservationNumber that is free, and those after it."""
        with quiet():
            items = value_of(self.data, "RTROIObservationsSequence") or ()
            return max((integer(item, "ObservationNumber") or 0 for item in items), default=0) + 1

    @property
    def ascii_only(self) -> bool:
        """Whether its character set may have no room for a letter beyond ASCII."""
        return text(self.data, "SpecificCharacterSet") != _UTF_8

    @property
    def explicit(self) -> bool:
        """Whether a contour ends at 65534 bytes in its transfer syntax."""
        return not _syntax(self.data).is_implicit_VR


def predecessor_of(place: Path, series: Series) -> Predecessor:
    """The structure set of a series in a file, or in a folder that holds one of it.

    Raises:
        DicomError: It is of another patient, study, frame of reference or series, or cannot be read; or a folder has
            none of this series, or several.
    """
    if not place.is_dir():
        return _read(place, series)
    fitting, reasons = [], []
    for path in _structure_sets(place):
        try:
            fitting.append(_read(path, series))
        except DicomError as error:
            reasons.append(str(error))
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DicomError(f"--add-to: {len(fitting)} structure sets of series {series.name} lie there. Name one.")
    why = f" ({len(reasons)} are of others)" if reasons else ""
    raise DicomError(f"--add-to: no structure set of series {series.name} lies there{why}. Name the one to add to.")


def successor(before: Predecessor, series: Series, stamp: datetime, seed: str | None, software: str) -> Dataset:
    """A new instance that holds what the earlier one does and refers to it."""
    data = read_dataset(before.path)
    with quiet():
        reference = Dataset()
        reference.ReferencedSOPClassUID = RTStructureSetStorage
        reference.ReferencedSOPInstanceUID = text(data, "SOPInstanceUID")
        for keyword in _OF_AN_APPROVAL:
            if keyword in data:
                delattr(data, keyword)
        data.SOPClassUID, data.SOPInstanceUID = RTStructureSetStorage, new_uid(seed, "instance")
        data.SeriesInstanceUID = new_uid(seed, "series")
        stamp_series(data, stamp)
        data.SeriesNumber, data.InstanceNumber = number_after(series.number, ADDED), 1
        data.SeriesDescription = "lnsegfm structures added (not for clinical use)"
        added = "Not for clinical use. Structures added by lnsegfm."
        given = str(value_of(data, "StructureSetDescription") or "")[: _MOST_TEXT - len(added) - 1]
        data.StructureSetDescription = f"{given} {added}".strip()
        data.ApprovalStatus = "UNAPPROVED"
        data.PredecessorStructureSetSequence = [reference]
        data.ContributingEquipmentSequence = [*data.get("ContributingEquipmentSequence", ()), _equipment(software)]
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
        meta.TransferSyntaxUID = _syntax(data)
        data.file_meta = meta
    return data


def require_kept(place: Path, path: Path, before: Predecessor) -> None:
    """Refuse a file that does not hold everything of its predecessor as it stood.

    Raises:
        DicomError: It does not.
    """
    now = read_dataset(place)
    with quiet():
        for keyword in KEPT:
            old, new = value_of(before.data, keyword) or (), value_of(now, keyword) or ()
            if len(new) < len(old) or not all(_same(a, b) for a, b in zip(old, new, strict=False)):
                raise DicomError(
                    f"{path}: read back, {keyword} of the earlier file is not as it was. Nothing was written."
                )


def _read(path: Path, series: Series) -> Predecessor:
    structures = read_rtstruct(path)
    data = read_dataset(path)
    what = "--add-to"  # the file's name may be a patient's
    remedy = "Name the structure set of this series."
    if text(data, "PatientID") != series.patient_id.strip():
        raise DicomError(f"{what}: it is of another patient than series {series.name}. {remedy}")
    if text(data, "StudyInstanceUID") != series.study_uid:
        raise DicomError(f"{what}: it is of another study than series {series.name}. {remedy}")
    if (why := mismatch(structures, series)) is not None:
        raise DicomError(f"{what}: {why}. {remedy}")
    if series.uid not in structures.referenced_series_uids:
        raise DicomError(f"{what}: it was drawn on another series than {series.name}. {remedy}")
    return Predecessor(path, data, structures)


def _structure_sets(folder: Path) -> Iterator[Path]:
    for path in files_under(folder):
        try:
            if is_dicom(path) and text(read_dataset(path, ["Modality"]), "Modality") == "RTSTRUCT":
                yield path
        except (DicomError, OSError):
            continue


def _syntax(data: Dataset) -> UID:
    named = getattr(getattr(data, "file_meta", None), "TransferSyntaxUID", None)
    if named is not None:
        return UID(named)
    return ImplicitVRLittleEndian if data.original_encoding[0] else ExplicitVRLittleEndian


def _equipment(software: str) -> Dataset:
    purpose, item = Dataset(), Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = "109103", "DCM", "Modifying Equipment"
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.Manufacturer = item.ManufacturerModelName = "lnsegfm"
    item.SoftwareVersions = software
    return item


def _same(old: Dataset, new: Dataset) -> bool:
    if set(old.keys()) != set(new.keys()):
        return False
    for tag in old.keys():  # noqa: SIM118  a data set iterates over elements
        a, b = old.get_item(tag), new.get_item(tag)
        if a is None or b is None:
            return False
        if isinstance(a.value, bytes | str | None) and a.VR != "SQ":
            if a.value != b.value:
                return False
            continue
        first, second = old[tag].value, new[tag].value
        if isinstance(first, Sequence):
            if len(first) != len(second) or not all(_same(x, y) for x, y in zip(first, second, strict=True)):
                return False
        elif first != second:
            return False
    return True
