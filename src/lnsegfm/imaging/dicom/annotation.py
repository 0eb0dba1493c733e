"""The header of an RTSTRUCT or SEG: the series it was drawn on, and the names of its structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.errors import DataError
from lnsegfm.storage import sha256

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


@dataclass(frozen=True)
class Annotation:
    """A structure set or segmentation, before its voxels are read.

    Args:
        path: The file.
        kind: ``RTSTRUCT`` or ``SEG``.
        uid: Its SOPInstanceUID.
        series_uids: The series that it says it was drawn on.
        frame_of_reference_uids: Those that it names.
        timestamp: Date and time of the structures, to tell the newest; empty where the file has none.
        description: SeriesDescription.
        names: Names of its structures or segments.
        has_contours: For each of them whether it has contours; of a SEG it is not known before its frames are read.
        digest: SHA-256 of the file: it tells when somebody has changed it.
    """

    path: Path
    kind: str
    uid: str
    series_uids: tuple[str, ...]
    frame_of_reference_uids: tuple[str, ...]
    timestamp: str
    description: str
    names: tuple[str, ...]
    has_contours: tuple[bool, ...]
    digest: str


def read_annotation(path: Path) -> Annotation:
    """Read the header of an RTSTRUCT or SEG.

    Raises:
        DataError: It is neither, or it cannot be read.
    """
    from lnsegfm.imaging.dicom.values import read_dataset, text

    data = read_dataset(path)
    kind = text(data, "Modality")
    if kind not in ("RTSTRUCT", "SEG"):
        raise DataError(f"File {path.name}: it is {kind or 'nothing known'}, not RTSTRUCT or SEG. Leave it out.")
    frames = [text(data, "FrameOfReferenceUID")]
    if kind == "RTSTRUCT":
        rois = list(_items(data, "StructureSetROISequence"))
        names = [text(roi, "ROIName") for roi in rois]
        has_contours = _has_contours(data, rois)
        own = [text(roi, "ReferencedFrameOfReferenceUID") for roi in rois]
        frames = own if any(own) else [*frames, *_frames_of_rtstruct(data)]
        series = _series_of_rtstruct(data)
        timestamp = _timestamp(data, "StructureSet", "Series", "Study")
    else:
        names = [text(segment, "SegmentLabel") for segment in _items(data, "SegmentSequence")]
        has_contours = [True] * len(names)
        series = [text(item, "SeriesInstanceUID") for item in _items(data, "ReferencedSeriesSequence")]
        timestamp = _timestamp(data, "Content", "Series", "Study")
    return Annotation(
        path=path,
        kind=kind,
        uid=text(data, "SOPInstanceUID"),
        series_uids=_unique(series),
        frame_of_reference_uids=_unique(frames),
        timestamp=timestamp,
        description=text(data, "SeriesDescription"),
        names=tuple(names),
        has_contours=tuple(has_contours),
        digest=_digest(path),
    )


def annotated_images(annotation: Annotation) -> frozenset[str]:
    """SOPInstanceUIDs of the images that contours or frames refer to; those of the whole file where none does.

    A list of a whole file tells little: planning systems name every slice of a series there.
    """
    from lnsegfm.imaging.dicom.values import read_dataset

    data = read_dataset(annotation.path)
    if annotation.kind == "RTSTRUCT":
        contours = (
            image
            for roi in _items(data, "ROIContourSequence")
            for contour in _items(roi, "ContourSequence")
            for image in _items(contour, "ContourImageSequence")
        )
        listed = (
            image
            for frame in _items(data, "ReferencedFrameOfReferenceSequence")
            for study in _items(frame, "RTReferencedStudySequence")
            for series in _items(study, "RTReferencedSeriesSequence")
            for image in _items(series, "ContourImageSequence")
        )
    else:
        contours = (
            image
            for frame in _items(data, "PerFrameFunctionalGroupsSequence")
            for derivation in _items(frame, "DerivationImageSequence")
            for image in _items(derivation, "SourceImageSequence")
        )
        listed = (
            image
            for series in _items(data, "ReferencedSeriesSequence")
            for image in _items(series, "ReferencedInstanceSequence")
        )
    return _images(contours) or _images(listed)


def _images(items: Iterable[Dataset]) -> frozenset[str]:
    from lnsegfm.imaging.dicom.values import text

    return frozenset(uid for item in items if (uid := text(item, "ReferencedSOPInstanceUID")))


def _has_contours(data: Dataset, rois: list[Dataset]) -> list[bool]:
    from lnsegfm.imaging.dicom.values import integer

    with_contours = {
        integer(item, "ReferencedROINumber")
        for item in _items(data, "ROIContourSequence")
        if next(_items(item, "ContourSequence"), None) is not None
    }
    return [integer(roi, "ROINumber") in with_contours for roi in rois]


def _frames_of_rtstruct(data: Dataset) -> list[str]:
    from lnsegfm.imaging.dicom.values import text

    return [text(item, "FrameOfReferenceUID") for item in _items(data, "ReferencedFrameOfReferenceSequence")]


def _series_of_rtstruct(data: Dataset) -> list[str]:
    from lnsegfm.imaging.dicom.values import text

    return [
        text(series, "SeriesInstanceUID")
        for frame in _items(data, "ReferencedFrameOfReferenceSequence")
        for study in _items(frame, "RTReferencedStudySequence")
        for series in _items(study, "RTReferencedSeriesSequence")
    ]


def _timestamp(data: Dataset, *stems: str) -> str:
    from lnsegfm.imaging.dicom.values import text

    for stem in stems:
        if date := text(data, f"{stem}Date"):
            return date + text(data, f"{stem}Time")
    return ""


def _items(data: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence; nothing where a damaged file holds something else."""
    from pydicom.dataset import Dataset

    from lnsegfm.imaging.dicom.values import value_of

    items = value_of(data, keyword)
    return (item for item in items if isinstance(item, Dataset)) if isinstance(items, Iterable) else iter(())


def _unique(uids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uid for uid in uids if uid))


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError(f"File {path.name} cannot be read ({why}). Allow reading it.") from None
