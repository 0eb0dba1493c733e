"""What is found in DICOM files: series, their slices, and what was refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.series_traits import SeriesTraits
from lnsegfm.imaging.grid import Grid


@dataclass(frozen=True, slots=True)
class Slice:
    """One plane of a series.

    Args:
        path: The file.
        frame: Which frame of it, from 0, in a multi-frame file; None in a single-frame one.
        sop_instance_uid: SOPInstanceUID of the file, or "" where it has none.
        sop_class_uid: SOPClassUID of the file, or "" where it has none.
        position_mm: ImagePositionPatient: (x, y, z) of the centre of the first pixel, LPS.
    """

    path: Path
    frame: int | None
    sop_instance_uid: str
    sop_class_uid: str
    position_mm: tuple[float, float, float]


@dataclass(frozen=True)
class Series:
    """A complete stack of slices.

    Args:
        uid: SeriesInstanceUID, or "" where the files have none.
        study_uid: StudyInstanceUID, or "".
        frame_of_reference_uid: FrameOfReferenceUID that exports carry: the one of most slices, or "".
        modality: Modality, such as "CT".
        description: SeriesDescription, or "".
        number: SeriesNumber; None where there is none.
        patient_id: PatientID, or "". It is left out of ``repr``, so that no log shows it by mistake.
        slices: Ascending along the normal n = row direction x column direction.
        grid: Array axis z along n, y along the columns, x along the rows; the origin is the first slice's position
            (for a straightened series: the corner of the plane that holds all of its slices).
        part: 0 where the UID has one stack; 1, 2, ... where it has several.
        notes: Remarks that stopped nothing, one line each.
        straightened: The series is sheared (gantry tilt): its slices are resampled onto ``grid`` when they are read.
        frames_of_reference: Every FrameOfReferenceUID of its slices, ``frame_of_reference_uid`` first.
        uneven: Its slices lie at uneven distances: they are interpolated onto the planes of ``grid`` when they are
            read, and there may be more or fewer planes than slices.
        traits: What tells it from the other series of its study.

    Raises:
        DataError: There are not as many slices as planes of the grid, and the series is not uneven.
    """

    uid: str
    study_uid: str
    frame_of_reference_uid: str
    modality: str
    description: str
    number: int | None
    patient_id: str = field(repr=False)
    slices: tuple[Slice, ...] = field(repr=False)
    grid: Grid
    part: int = 0
    notes: tuple[str, ...] = ()
    straightened: bool = False
    frames_of_reference: tuple[str, ...] = ()
    uneven: bool = False
    traits: SeriesTraits = field(default=SeriesTraits(), repr=False)

    def __post_init__(self) -> None:
        if not self.frames_of_reference and self.frame_of_reference_uid:
            object.__setattr__(self, "frames_of_reference", (self.frame_of_reference_uid,))
        if len(self.slices) != self.grid.shape[0] and not self.uneven:
            planes = self.grid.shape[0]
            raise DataError(f"Series {self.name}: {len(self.slices)} slices on {planes} planes. Give one a plane.")

    def in_frame(self, frame_of_reference_uid: str) -> bool:
        """Whether a frame of reference is that of one of its slices."""
        return frame_of_reference_uid in self.frames_of_reference

    @property
    def name(self) -> str:
        """What messages call it: its UID, or else its description and number; with its part where there are several."""
        part = f" (part {self.part})" if self.part else ""
        return series_name(self.uid, self.description, self.number) + part


@dataclass(frozen=True)
class SeriesOptions:
    """Which stacks of slices are taken that fit no grid as they are.

    Args:
        straighten: Sheared ones (gantry tilt), resampled onto an orthogonal grid.
        resample_uneven: Those of uneven slice distances, interpolated onto a grid of one distance.
    """

    straighten: bool = False
    resample_uneven: bool = False


@dataclass(frozen=True)
class Refusal:
    """Something that looked like a series, or part of one, and that cannot be used.

    Args:
        series: Its UID, or its description where it has none; the file's name for a file that cannot be read.
        reason: One line: what, why not, and what to do.
        harmless: No slice of a volume is lost, as where localisers are set aside: nothing needs doing.
        images: How many images it is about; 1 for a file that cannot be read.
    """

    series: str
    reason: str
    harmless: bool = False
    images: int = 0

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True)
class SeriesIndex:
    """Everything that a folder, a file or a zip holds.

    Args:
        series: Complete series of the modalities asked for.
        refused: What is not used, and why.
        structures: RTSTRUCT files.
        segmentations: DICOM SEG files.
        others: Number of images by modality that was not asked for, as pairs.
        other_series: SeriesInstanceUID and modality of the series that these belong to, as pairs.
    """

    series: tuple[Series, ...] = ()
    refused: tuple[Refusal, ...] = ()
    structures: tuple[Path, ...] = ()
    segmentations: tuple[Path, ...] = ()
    others: tuple[tuple[str, int], ...] = ()
    other_series: tuple[tuple[str, str], ...] = ()


def series_name(uid: str, description: str, number: int | None) -> str:
    """What messages call a series: its UID, or else its description and number. Never the patient."""
    if uid:
        return uid
    numbered = f"number {number}" if number is not None else "without number"
    return f'"{description}" ({numbered}, no UID)' if description else f"{numbered}, without UID and description"
