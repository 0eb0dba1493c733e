"""Segmentations: what their segments are, and which voxels of a grid they cover.

Each segment is read on its own, so segments may overlap. Frames are placed by their position and orientation; a frame
that is not there (writers leave out empty ones) holds nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.dicom.codes import Code
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rois import NO_VOXEL, NoteCallback, labels_by_priority, match_rois, overlap_notes
from lnsegfm.imaging.dicom.seg_geometry import FramePlane, Indices, Placement, place_on_grid
from lnsegfm.imaging.dicom.seg_pixels import Pixels
from lnsegfm.imaging.dicom.skipped_slices import read_skipped_slices
from lnsegfm.imaging.grid import Grid

THRESHOLD = 0.5
"""From this part of MaximumFractionalValue on, a pixel of a fractional segmentation belongs to its segment."""

_NOT_RESAMPLED = "Give the grid that it was drawn on; a segmentation is not resampled"


@dataclass(frozen=True)
class Segment:
    """The description of one segment.

    Args:
        number: Its SegmentNumber.
        label: Its SegmentLabel, the name that patterns are compared with.
        description: Its SegmentDescription, "" where absent.
        category: Segmented property category; None where absent.
        type: Segmented property type; None where absent.
        algorithm_type: AUTOMATIC, SEMIAUTOMATIC or MANUAL, "" where absent.
        algorithm_name: "" where absent.
        tracking_id: The readable name under which it is followed over time, "" where absent.
        tracking_uid: The same, unique.
    """

    number: int
    label: str
    description: str = ""
    category: Code | None = None
    type: Code | None = None
    algorithm_type: str = ""
    algorithm_name: str = ""
    tracking_id: str = ""
    tracking_uid: str = ""


@dataclass(frozen=True)
class Frame:
    """One stored plane.

    Args:
        segment: Number of the segment it belongs to; None in a label map, whose pixels are the numbers.
        plane: Where it lies.
    """

    segment: int | None
    plane: FramePlane


@dataclass(frozen=True)
class Segmentation:
    """A DICOM segmentation.

    Args:
        path: Its file.
        kind: BINARY, FRACTIONAL or LABELMAP.
        frame_of_reference_uid: "" where absent.
        study_uid: "" where absent.
        referenced_series_uids: Of the series that it was drawn on, as far as it says so.
        segments: In the order of the file, without the background of a label map.
        frames: In the order of the file.
        slice_distance_mm: SpacingBetweenSlices, where it is stated.
        background: In a label map, the value of pixels of no segment.
    """

    path: Path
    kind: str
    frame_of_reference_uid: str
    study_uid: str
    referenced_series_uids: tuple[str, ...]
    segments: tuple[Segment, ...]
    frames: tuple[Frame, ...]
    slice_distance_mm: float | None = None
    background: int | None = None
    _pixels: Pixels = field(repr=False, compare=False, kw_only=True)

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"Segmentation {self.path.name}"

    @property
    def names(self) -> tuple[str, ...]:
        """The segments' labels, in the order of the file."""
        return tuple(s.label for s in self.segments)

    def segment(self, number: int) -> Segment:
        """The segment of a number.

        Raises:
            DicomError: There is none.
        """
        for segment in self.segments:
            if segment.number == number:
                return segment
        known = ", ".join(f"{s.number} ({s.label})" for s in self.segments)
        raise DicomError(f"{self.title}: it has no segment {number}. It has {known}.")


def segment_mask(
    segments: Segmentation,
    number: int,
    grid: Grid,
    *,
    threshold: float = THRESHOLD,
    frame_of_reference_uid: str = "",
    fill_between: bool = False,
    on_note: NoteCallback | None = None,
) -> np.ndarray:
    """One segment on a grid, bool (z, y, x), whatever overlaps it.

    Args:
        segments: The segmentation.
        number: The segment's number.
        grid: Where to; its slices may be in any order and its axes may run either way.
        threshold: Of a fractional segmentation: the part of its maximum from which a pixel belongs to the segment.
        frame_of_reference_uid: Of the scan that the grid is of; compared where both are known.
        fill_between: Fill in slices that were skipped between frames that hold an object (``skipped_slices``).
        on_note: Is given a line about skipped slices.

    Raises:
        DicomError: No such segment, a frame of reference that differs, a grid that differs (nothing is resampled), or
            frames that contradict each other or do not decode.
        ConfigError: A threshold that is not within (0, 1].
    """
    title = f"Segment {segments.segment(number).label!r}"
    mask = np.zeros(grid.shape, dtype=bool)
    for numbers, where in frame_voxels(segments, grid, {number}, threshold, frame_of_reference_uid):
        mask[tuple(axis[numbers == number] for axis in where)] = True
    across = _across_frames(segments, grid)
    for line in read_skipped_slices(title, mask, grid.spacing_mm, axis=across, fill=fill_between):
        if on_note is not None:
            on_note(line)
    return mask


def segments_mask(
    segments: Segmentation,
    grid: Grid,
    patterns: Sequence[str],
    labels: Mapping[str, int],
    *,
    priority: Sequence[str] | None = None,
    threshold: float = THRESHOLD,
    frame_of_reference_uid: str = "",
    numbers: Set[int | None] | None = None,
    strict: bool = True,
    fill_between: bool = False,
    on_note: NoteCallback | None = None,
) -> np.ndarray:
    """Segments merged into one mask of labels, uint8 (z, y, x).

    Args:
        segments: The segmentation.
        grid: Of the mask.
        patterns: Such as ``LN*=lymph_node``: which segments' names become which label (see ``match_rois``).
        labels: The value of each label, 1 to 255.
        priority: Labels; where two overlap the voxel is the first one's. Labels left out come after these. In the order
            of the patterns unless given.
        threshold: As in ``segment_mask``.
        frame_of_reference_uid: As in ``segment_mask``.
        numbers: Of the segments that come into question; all unless given.
        strict: Refuse a pattern that matches no name; otherwise it is reported.
        fill_between: As in ``segment_mask``, for all segments of a label together.
        on_note: Is given a line about everything that was passed over, skipped or overlaps, and about each segment that
            has no voxel.

    Raises:
        DicomError: As ``segment_mask``, or a label without a value.
        DataError: As ``match_rois``.
    """
    on_note = on_note or (lambda _: None)
    asked = [s for s in segments.segments if numbers is None or s.number in numbers]
    matched = match_rois([s.label for s in asked], patterns, strict=strict)
    for pattern in matched.unused:
        on_note(f"Pattern {pattern}: no segment has such a name.")
    mask = np.zeros(grid.shape, dtype=np.uint8)
    overlaps: dict[tuple[str, str], int] = {}
    done: list[str] = []
    drawn: set[int] = set()
    across = _across_frames(segments, grid)
    for label in labels_by_priority(matched, labels, priority):
        wanted = {s.number for s, given in zip(asked, matched.labels, strict=True) if given == label}
        for found, where in frame_voxels(segments, grid, wanted, threshold, frame_of_reference_uid):
            own = np.isin(found, sorted(wanted))
            place = (where[0][own], where[1][own], where[2][own])
            taken = mask[place]
            for other in done:
                if several := int(np.count_nonzero(taken == labels[other])):
                    overlaps[other, label] = overlaps.get((other, label), 0) + several
            mask[place] = np.where(taken == 0, labels[label], taken)
            drawn.update(np.unique(found[own]).tolist())
        own_voxels = mask == labels[label]
        title = f"{segments.title}: label {label}"
        for line in read_skipped_slices(title, own_voxels, grid.spacing_mm, axis=across, fill=fill_between):
            on_note(line)
        if fill_between:
            mask[own_voxels & (mask == 0)] = labels[label]
        done.append(label)
    framed = {frame.segment for frame in segments.frames}
    for segment, given in zip(asked, matched.labels, strict=True):
        if given is not None and segment.number not in drawn:
            why = "no pixel of its frames is its own" if framed & {segment.number, None} else "no frame is of it"
            on_note(f"Segment {segment.label!r} {NO_VOXEL}{why}.")
    for line in overlap_notes(overlaps):
        on_note(line)
    return mask


def frame_voxels(
    segments: Segmentation, grid: Grid, wanted: Set[int], threshold: float, frame_of_reference_uid: str
) -> Iterator[tuple[np.ndarray, Indices]]:
    """Frame by frame, the voxels of the wanted segments (in a label map: of all): their numbers and their indices.

    Raises:
        DicomError, ConfigError: As ``segment_mask``.
    """
    if not 0.0 < threshold <= 1.0:
        raise ConfigError(f"Threshold {threshold}: a part of the maximum. Use a number above 0, and 1 at most.")
    stated = segments.frame_of_reference_uid
    if frame_of_reference_uid and stated and stated != frame_of_reference_uid:
        why = f"its frame of reference is {stated} and the scan's is {frame_of_reference_uid}"
        raise DicomError(f"{segments.title}: {why}. Give the scan that it was drawn on, or register the two.")
    known = [s.number for s in segments.segments]
    contents: dict[tuple[int | None, Placement], bytes] = {}
    for k, frame in enumerate(segments.frames):
        if frame.segment is not None and frame.segment not in wanted:
            continue
        try:
            place = place_on_grid(frame.plane, grid)
        except DicomError as error:
            what = f"frame {k + 1} does not lie on the grid: {error}"
            raise DicomError(f"{segments.title}: {what}. {_NOT_RESAMPLED}.") from None
        pixels = segments._pixels.frame(k, threshold)
        inside = pixels if frame.segment is not None else pixels != segments.background
        content = hashlib.sha256(np.ascontiguousarray(pixels).data).digest()
        if contents.setdefault((frame.segment, place), content) != content:
            what = f"frame {k + 1} contradicts an earlier frame of its segment at the same place"
            raise DicomError(f"{segments.title}: {what}. Export it again.")
        if outside := _outside(inside, place, grid):
            what = f"frame {k + 1} has {outside} voxels outside the grid of {grid.shape} (z, y, x)"
            raise DicomError(f"{segments.title}: {what}. Give the whole scan that it was drawn on.")
        rows, columns = np.nonzero(inside)
        where = place.indices(rows, columns)
        numbers = pixels[rows, columns] if frame.segment is None else np.full(len(rows), frame.segment)
        if frame.segment is None and (unknown := np.setdiff1d(numbers, known)).size:
            what = f"frame {k + 1} has pixels of segment {int(unknown[0])}, which is not described"
            raise DicomError(f"{segments.title}: {what}. Export it again.")
        yield numbers, where


def _outside(inside: np.ndarray, place: Placement, grid: Grid) -> int:
    """How many pixels of a frame lie beyond the grid; counted without a list of them, which may be long."""
    fits = [np.ones(n, dtype=bool) for n in inside.shape]
    for axis, size in enumerate(grid.shape[::-1]):
        still = not any(step[axis] for step in place.steps)  # across the frame: all of it fits, or nothing
        for fit, step in zip(fits, place.steps, strict=True):
            if step[axis] or still:
                at = place.start[axis] + np.arange(len(fit)) * step[axis]
                fit &= (at >= 0) & (at < size)
    return int(np.count_nonzero(inside) - np.count_nonzero(inside[fits[0]][:, fits[1]]))


def _across_frames(segments: Segmentation, grid: Grid) -> int:
    """The axis of arrays (z, y, x) that runs across the frames."""
    axes = np.array(grid.direction).reshape(3, 3)
    return 2 - int(np.argmax(np.abs(axes.T @ segments.frames[0].plane.normal)))


def segments_with_voxels(segments: Segmentation, threshold: float = THRESHOLD) -> frozenset[int]:
    """Numbers of the segments of which a frame has a voxel. Frames are unpacked until each segment has shown one.

    Raises:
        DicomError: Frames that do not decode.
    """
    known = {segment.number for segment in segments.segments}
    seen: set[int] = set()
    for k, frame in enumerate(segments.frames):
        if frame.segment in seen:
            continue
        if seen >= known:
            break
        pixels = segments._pixels.frame(k, threshold)
        if frame.segment is None:
            seen |= set(np.unique(pixels).tolist()) & known
        elif pixels.any():
            seen.add(frame.segment)
    return frozenset(seen)
