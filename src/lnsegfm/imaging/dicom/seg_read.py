"""Read DICOM segmentations: binary, fractional and label maps.

Sources: DICOM PS3.3, A.51 and C.8.20 (Segmentation IOD and modules), Supplement 243 (label maps). What a file says of
its segments and of the positions of its frames becomes a ``Segmentation``; ``segment_mask`` and ``segments_mask`` put
them on the grid of a scan.
"""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID, SegmentationStorage

from lnsegfm.imaging.dicom.codes import Code
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.headers import LABEL_MAP_SEGMENTATION, is_dicom
from lnsegfm.imaging.dicom.seg_geometry import FramePlane
from lnsegfm.imaging.dicom.seg_pixels import Pixels
from lnsegfm.imaging.dicom.segmentation import Frame, Segment, Segmentation, segment_mask, segments_mask
from lnsegfm.imaging.dicom.values import first_item, group_item, integer, numbers, quiet, read_dataset, text

__all__ = ["Frame", "Segment", "Segmentation", "read_seg", "segment_mask", "segments_mask"]

KINDS = ("BINARY", "FRACTIONAL", "LABELMAP")


def read_seg(path: Path) -> Segmentation:
    """Read a DICOM segmentation: what its segments are and where its frames lie. Pixels are unpacked when asked for.

    Raises:
        DicomError: Not a DICOM file, not a segmentation, of an unknown type, without frames, without a functional
            group that places a frame, cut short, or damaged.
    """
    if not path.is_file():
        raise DicomError(f"Segmentation {path}: no such file. Check the path.")
    if not is_dicom(path):
        raise DicomError(f"Segmentation {path.name}: not a DICOM file. Give a DICOM SEG.")
    data = read_dataset(path, pixels=True)
    with quiet():
        try:
            return _segments(path, data)
        except DicomError:
            raise
        except Exception as error:  # values are parsed when they are looked at, and a damaged one may raise anything
            raise _error(path, f"damaged ({type(error).__name__} in its header)", _AGAIN) from None


def _segments(path: Path, data: Dataset) -> Segmentation:
    kind, background = _kind(path, data), None
    if kind == "LABELMAP":
        background = integer(data, "PixelPaddingValue") or 0
    described = [_segment(path, item) for item in data.get("SegmentSequence") or ()]
    segments = tuple(s for s in described if s.number != background)
    if not segments:
        raise _error(path, "it describes no segment", _AGAIN)
    if len({s.number for s in segments}) < len(segments):
        raise _error(path, "two of its segments have the same number", _AGAIN)
    frames = _frames(path, data, kind, {s.number for s in segments})
    shared = first_item(first_item(data, "SharedFunctionalGroupsSequence"), "PixelMeasuresSequence")
    distance = numbers(shared, "SpacingBetweenSlices", 1) if shared is not None else None
    return Segmentation(
        path=path,
        kind=kind,
        frame_of_reference_uid=text(data, "FrameOfReferenceUID"),
        study_uid=text(data, "StudyInstanceUID"),
        referenced_series_uids=_referenced(data),
        segments=segments,
        frames=frames,
        slice_distance_mm=abs(distance[0]) or None if distance else None,
        background=background,
        _pixels=Pixels(
            path=path,
            kind=kind,
            shape=frames[0].plane.shape,
            bits=integer(data, "BitsAllocated") or 0,
            maximum=integer(data, "MaximumFractionalValue") or 0,
            frames=len(frames),
            data=data,
        ),
    )


def _kind(path: Path, data: Dataset) -> str:
    sop_class = text(data, "SOPClassUID")
    if sop_class not in (SegmentationStorage, LABEL_MAP_SEGMENTATION):
        what = UID(sop_class).name or text(data, "Modality") or "unknown"
        raise _error(path, f"not a segmentation but {what}", "Give a DICOM SEG")
    kind = text(data, "SegmentationType").upper() or ("LABELMAP" if sop_class == LABEL_MAP_SEGMENTATION else "")
    if kind not in KINDS:
        raise _error(path, f"unknown segmentation type {kind!r}", f"Export it as {', '.join(KINDS)}")
    return kind


def _segment(path: Path, item: Dataset) -> Segment:
    number = integer(item, "SegmentNumber")
    if number is None:
        raise _error(path, "one of its segments has no number", _AGAIN)
    return Segment(
        number=number,
        label=text(item, "SegmentLabel"),
        description=text(item, "SegmentDescription"),
        category=_code(item, "SegmentedPropertyCategoryCodeSequence"),
        type=_code(item, "SegmentedPropertyTypeCodeSequence"),
        algorithm_type=text(item, "SegmentAlgorithmType"),
        algorithm_name=text(item, "SegmentAlgorithmName"),
        tracking_id=text(item, "TrackingID"),
        tracking_uid=text(item, "TrackingUID"),
    )


def _code(item: Dataset, sequence: str) -> Code | None:
    code = first_item(item, sequence)
    if code is None:
        return None
    value = text(code, "CodeValue") or text(code, "LongCodeValue") or text(code, "URNCodeValue")
    return Code(value, text(code, "CodingSchemeDesignator"), text(code, "CodeMeaning"))


def _frames(path: Path, data: Dataset, kind: str, known: set[int]) -> tuple[Frame, ...]:
    count = integer(data, "NumberOfFrames") or 0
    if count < 1 or "PixelData" not in data:
        raise _error(path, "it has no frames", _AGAIN)
    own = data.get("PerFrameFunctionalGroupsSequence") or ()
    if len(own) != count:
        what = f"it has {count} frames and functional groups of {len(own)} that say where they lie"
        raise _error(path, what, _AGAIN)
    shared = first_item(data, "SharedFunctionalGroupsSequence")
    shape = (integer(data, "Rows") or 0, integer(data, "Columns") or 0)
    return tuple(
        Frame(
            None if kind == "LABELMAP" else _number(path, k, item, shared, known), _plane(path, k, item, shared, shape)
        )
        for k, item in enumerate(own, 1)
    )


def _number(path: Path, k: int, own: Dataset, shared: Dataset | None, known: set[int]) -> int:
    item = group_item(own, shared, "SegmentIdentificationSequence")
    number = integer(item, "ReferencedSegmentNumber") if item is not None else None
    if number is None:
        raise _error(path, f"frame {k} does not say which segment it belongs to", _AGAIN)
    if number not in known:
        raise _error(path, f"frame {k} belongs to segment {number}, which is not described", _AGAIN)
    return number


def _plane(path: Path, k: int, own: Dataset, shared: Dataset | None, shape: tuple[int, int]) -> FramePlane:
    placement = []
    for sequence, keyword, count in (
        ("PlanePositionSequence", "ImagePositionPatient", 3),
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PixelMeasuresSequence", "PixelSpacing", 2),
    ):
        item = group_item(own, shared, sequence)
        values = numbers(item, keyword, count) if item is not None else None
        if values is None:
            raise _error(path, f"frame {k} has no {keyword} ({sequence})", "It cannot be placed: export it again")
        placement.append(values)
    position, cosines, spacing = placement
    row, column = cosines[:3], cosines[3:]
    lengths = [sum(v * v for v in axis) for axis in (row, column)]
    if max(abs(n - 1) for n in lengths) > 2e-3 or abs(sum(a * b for a, b in zip(row, column, strict=True))) > 1e-3:
        raise _error(path, f"frame {k} has an orientation whose axes are not at right angles", _AGAIN)
    if min(spacing) <= 0:
        raise _error(path, f"frame {k} has pixels of {spacing[0]:g} x {spacing[1]:g} mm", _AGAIN)
    return FramePlane(
        shape=shape,
        position_mm=(position[0], position[1], position[2]),
        along_row=(row[0], row[1], row[2]),
        along_column=(column[0], column[1], column[2]),
        spacing_mm=(spacing[0], spacing[1]),
    )


def _referenced(data: Dataset) -> tuple[str, ...]:
    named = [text(item, "SeriesInstanceUID") for item in data.get("ReferencedSeriesSequence") or ()]
    return tuple(dict.fromkeys(uid for uid in named if uid))


_AGAIN = "Export or copy it again"


def _error(path: Path, what: str, remedy: str) -> DicomError:
    return DicomError(f"Segmentation {path.name}: {what}. {remedy}.")
