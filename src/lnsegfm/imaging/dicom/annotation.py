"""The header of an RTSTRUCT or SEG: who drew which structures when, and on which images."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotated_images import items_of, segments_of, structures_of
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure
from lnsegfm.storage import sha256

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

NO_TIME = ""


@dataclass(frozen=True)
class Annotation:
    """A structure set or segmentation, before its voxels are read.

    Args:
        path: The file.
        kind: ``RTSTRUCT`` or ``SEG``.
        uid: Its SOPInstanceUID.
        patient_id: PatientID. It is left out of ``repr``.
        study_uid: StudyInstanceUID.
        series_uids: The series that it says it was drawn on.
        frame_of_reference_uids: Those of its structures.
        timestamp: Date and time of the structures; empty where the file has none.
        times: Dates and times by which the newest is known, the first that differs decides; empty where missing.
        instance_number: InstanceNumber; -1 where there is none.
        description: SeriesDescription.
        manufacturer: Manufacturer.
        model: ManufacturerModelName.
        operators: OperatorsName. It is left out of ``repr``, as the next two are.
        reviewer: ReviewerName.
        creator: ContentCreatorName.
        contributors: Manufacturer of each item of ContributingEquipmentSequence: programs that changed the file.
        approval: ApprovalStatus: APPROVED, UNAPPROVED, REJECTED, or empty.
        structures: Its structures or segments, in the file's order.
        digest: SHA-256 of the file: it tells when somebody has changed it.
    """

    path: Path
    kind: str
    uid: str
    series_uids: tuple[str, ...]
    frame_of_reference_uids: tuple[str, ...]
    timestamp: str
    description: str
    structures: tuple[DrawnStructure, ...]
    digest: str
    patient_id: str = field(default="", repr=False)
    study_uid: str = ""
    times: tuple[str, ...] = ()
    instance_number: int = -1
    manufacturer: str = ""
    model: str = ""
    operators: str = field(default="", repr=False)
    reviewer: str = field(default="", repr=False)
    creator: str = field(default="", repr=False)
    contributors: tuple[str, ...] = ()
    approval: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its structures or segments."""
        return tuple(structure.name for structure in self.structures)

    @property
    def has_contours(self) -> tuple[bool, ...]:
        """For each structure whether it has contours, or voxels."""
        return tuple(structure.drawn for structure in self.structures)

    @property
    def age(self) -> tuple[tuple[str, ...], int]:
        """Greater for a newer one; a file that lacks a date or time counts as older than one that has it."""
        return self.times, self.instance_number


def read_annotation(path: Path) -> Annotation:
    """Read the header of an RTSTRUCT or SEG.

    Raises:
        DataError: It is neither, or it cannot be read.
    """
    from lnsegfm.imaging.dicom.values import integer, read_dataset, text

    data = read_dataset(path)
    kind = text(data, "Modality")
    if kind not in ("RTSTRUCT", "SEG"):
        raise DataError(f"File {path.name}: it is {kind or 'nothing known'}, not RTSTRUCT or SEG. Leave it out.")
    own_date = "StructureSet" if kind == "RTSTRUCT" else "Content"
    contents = structures_of(data) if kind == "RTSTRUCT" else segments_of(path, data)
    number = integer(data, "InstanceNumber")
    return Annotation(
        path=path,
        kind=kind,
        uid=text(data, "SOPInstanceUID"),
        series_uids=contents.series_uids,
        frame_of_reference_uids=contents.frames_of_reference,
        timestamp=_timestamp(data, own_date, "Series", "Study"),
        description=text(data, "SeriesDescription"),
        structures=contents.structures,
        digest=_digest(path),
        patient_id=text(data, "PatientID"),
        study_uid=text(data, "StudyInstanceUID"),
        times=_times(data, own_date),
        instance_number=-1 if number is None else number,
        manufacturer=text(data, "Manufacturer"),
        model=text(data, "ManufacturerModelName"),
        operators=text(data, "OperatorsName"),
        reviewer=text(data, "ReviewerName"),
        creator=text(data, "ContentCreatorName"),
        contributors=tuple(text(item, "Manufacturer") for item in items_of(data, "ContributingEquipmentSequence")),
        approval=text(data, "ApprovalStatus").upper(),
    )


def _timestamp(data: Dataset, *stems: str) -> str:
    from lnsegfm.imaging.dicom.values import text

    for stem in stems:
        if date := text(data, f"{stem}Date"):
            return date + text(data, f"{stem}Time")
    return NO_TIME


def _times(data: Dataset, own: str) -> tuple[str, ...]:
    """The dates and times that order files, each in a form that sorts, empty where missing or unreadable.

    The first is that of the structures, or else of the series, the content, the study; then series, content and
    creation of the file.
    """
    stems = ("Series", "Content", "InstanceCreation")
    first = next((when for stem in (own, "Series", "Content", "Study") if (when := _moment(data, stem))), NO_TIME)
    return (first, *(_moment(data, stem) for stem in stems))


def _moment(data: Dataset, stem: str) -> str:
    from lnsegfm.imaging.dicom.values import text

    date = re.sub(r"[.\-/ ]", "", text(data, f"{stem}Date"))  # 2020.01.02 is how it was written before 1993
    if not re.fullmatch(r"\d{8}", date):
        return NO_TIME
    clock = text(data, f"{stem}Time").replace(":", "")
    parts = re.fullmatch(r"(\d{2,6})(?:\.(\d*))?", clock)
    if parts is None or len(parts[1]) % 2:
        return date
    return f"{date}{parts[1]:0<6}.{parts[2] or '':0<6}"


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(f"File {path.name} cannot be read ({why}). Allow reading it.") from None
