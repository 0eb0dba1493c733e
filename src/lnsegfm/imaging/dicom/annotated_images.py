"""What the structures of an RTSTRUCT and the segments of a SEG say of themselves and of the images they lie on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.drawn_structure import DrawnStructure

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MODALITY_OF_CLASS = {
    "CT": ("2", "2.1", "2.2"),
    "MR": ("4", "4.1", "4.2", "4.3", "4.4"),
    "PT": ("128", "128.1", "130"),
    "NM": ("20",),
    "US": ("6.1", "6.2", "3.1"),
}
_MODALITIES = {_STORAGE + end: modality for modality, ends in _MODALITY_OF_CLASS.items() for end in ends}


@dataclass(frozen=True)
class AnnotationContents:
    """What a file holds.

    Args:
        structures: In the file's order.
        series_uids: The series that the file names.
        frames_of_reference: Those of its structures, or else those that it lists.
    """

    structures: tuple[DrawnStructure, ...]
    series_uids: tuple[str, ...]
    frames_of_reference: tuple[str, ...]


@dataclass(frozen=True)
class _ListedFrame:
    """One item of ReferencedFrameOfReferenceSequence: the series and images of a frame of reference."""

    uid: str
    series_uids: tuple[str, ...]
    images: tuple[tuple[str, str], ...]  # SOPInstanceUID, modality


def structures_of(data: Dataset) -> AnnotationContents:
    """The structures of an RTSTRUCT.

    Where no structure lies in a frame of reference that the file lists, its list is taken for all of them.
    """
    from lnsegfm.imaging.dicom.values import integer, text

    rois = list(items_of(data, "StructureSetROISequence"))
    own = [text(roi, "ReferencedFrameOfReferenceUID") for roi in rois]
    listed = [_listed_frame(item) for item in items_of(data, "ReferencedFrameOfReferenceSequence")]
    stated = _unique([text(data, "FrameOfReferenceUID"), *(each.uid for each in listed)])
    frames = _unique(own) or stated
    unlisted = not {each.uid for each in listed} & set(own)
    images, with_contours = _images_of_contours(data)
    interpreters = {
        integer(item, "ReferencedROINumber"): text(item, "ROIInterpreter")
        for item in items_of(data, "RTROIObservationsSequence")
    }
    structures = []
    for roi, frame in zip(rois, own, strict=True):
        number = integer(roi, "ROINumber")
        about = [each for each in listed if unlisted or not frame or each.uid in ("", frame)]
        named = images.get(number, {})
        of_list = dict(image for each in about for image in each.images)
        structures.append(
            DrawnStructure(
                number=number,
                name=text(roi, "ROIName"),
                drawn=number in with_contours,
                frames_of_reference=(frame,) if frame else stated,
                series_uids=_unique(uid for each in about for uid in each.series_uids),
                images=frozenset(named),
                listed_images=frozenset(of_list),
                modalities=frozenset((named or of_list).values()) - {""},
                algorithm=text(roi, "ROIGenerationAlgorithm").upper(),
                algorithm_name=text(roi, "ROIGenerationDescription"),
                interpreter=interpreters.get(number, ""),
            )
        )
    return AnnotationContents(tuple(structures), _unique(uid for each in listed for uid in each.series_uids), frames)


def segments_of(path: Path, data: Dataset) -> AnnotationContents:
    """The segments of a SEG.

    Args:
        path: The file: which segments have voxels is known from its pixels.
        data: Its header.
    """
    from lnsegfm.imaging.dicom.values import integer, text

    listed = list(items_of(data, "ReferencedSeriesSequence"))
    series = _unique(text(item, "SeriesInstanceUID") for item in listed)
    of_list = dict(_references(image for item in listed for image in items_of(item, "ReferencedInstanceSequence")))
    frames = _unique([text(data, "FrameOfReferenceUID")])
    images = _images_of_frames(data)
    segments = list(items_of(data, "SegmentSequence"))
    drawn = _drawn_segments(path)
    structures = []
    for segment in segments:
        number = integer(segment, "SegmentNumber")
        named = images.get(number, {}) | images.get(None, {})
        structures.append(
            DrawnStructure(
                number=number,
                name=text(segment, "SegmentLabel"),
                drawn=drawn is None or number in drawn,
                frames_of_reference=frames,
                series_uids=series,
                images=frozenset(named),
                listed_images=frozenset(of_list),
                modalities=frozenset((named or of_list).values()) - {""},
                algorithm=text(segment, "SegmentAlgorithmType").upper(),
                algorithm_name=text(segment, "SegmentAlgorithmName"),
            )
        )
    return AnnotationContents(tuple(structures), series, frames)


def items_of(data: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence; nothing where a damaged file holds something else."""
    from pydicom.dataset import Dataset

    from lnsegfm.imaging.dicom.values import value_of

    items = value_of(data, keyword)
    return (item for item in items if isinstance(item, Dataset)) if isinstance(items, Iterable) else iter(())


def _listed_frame(item: Dataset) -> _ListedFrame:
    from lnsegfm.imaging.dicom.values import text

    series = [
        each
        for study in items_of(item, "RTReferencedStudySequence")
        for each in items_of(study, "RTReferencedSeriesSequence")
    ]
    return _ListedFrame(
        text(item, "FrameOfReferenceUID"),
        _unique(text(each, "SeriesInstanceUID") for each in series),
        tuple(_references(image for each in series for image in items_of(each, "ContourImageSequence"))),
    )


def _images_of_contours(data: Dataset) -> tuple[dict[int | None, dict[str, str]], set[int | None]]:
    """By structure the images that its contours name; and the structures that have contours."""
    from lnsegfm.imaging.dicom.values import integer

    images: dict[int | None, dict[str, str]] = defaultdict(dict)
    with_contours = set()
    for item in items_of(data, "ROIContourSequence"):
        number = integer(item, "ReferencedROINumber")
        for contour in items_of(item, "ContourSequence"):
            with_contours.add(number)
            images[number].update(_references(items_of(contour, "ContourImageSequence")))
    return images, with_contours


def _images_of_frames(data: Dataset) -> dict[int | None, dict[str, str]]:
    """By segment the images that its frames were derived from; under None those of frames of several segments."""
    from lnsegfm.imaging.dicom.values import first_item, group_item, integer

    shared = first_item(data, "SharedFunctionalGroupsSequence")
    images: dict[int | None, dict[str, str]] = defaultdict(dict)
    for frame in items_of(data, "PerFrameFunctionalGroupsSequence"):
        segment = group_item(frame, shared, "SegmentIdentificationSequence")
        number = integer(segment, "ReferencedSegmentNumber") if segment is not None else None
        for derivation in items_of(frame, "DerivationImageSequence"):
            images[number].update(_references(items_of(derivation, "SourceImageSequence")))
    return images


def _drawn_segments(path: Path) -> frozenset[int] | None:
    """Numbers of the segments that have a voxel; None where it cannot be told before the file is read."""
    from lnsegfm.imaging.dicom.seg_read import read_seg
    from lnsegfm.imaging.dicom.segmentation import segments_with_voxels

    try:
        return segments_with_voxels(read_seg(path))
    except DataError:
        return None


def _references(items: Iterable[Dataset]) -> Iterator[tuple[str, str]]:
    """SOPInstanceUID and modality (by SOP class) of the images that items refer to."""
    from lnsegfm.imaging.dicom.values import text

    for item in items:
        if uid := text(item, "ReferencedSOPInstanceUID"):
            yield uid, _MODALITIES.get(text(item, "ReferencedSOPClassUID"), "")


def _unique(uids: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(uid for uid in uids if uid))
