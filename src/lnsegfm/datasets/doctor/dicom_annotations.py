"""What was drawn on DICOM series: structure sets and segmentations, whose they are, and what is odd about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.body import find_body
from lnsegfm.datasets.doctor.finding import Finding, Severity, from_sentence
from lnsegfm.datasets.doctor.mask_checks import judge_air, judge_fragments, judge_place, judge_sides
from lnsegfm.datasets.doctor.sides import centre_x_mm, side_pairs, swapped
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import read_seg, segment_mask
from lnsegfm.imaging.dicom.series import Series, SeriesIndex
from lnsegfm.imaging.dicom.structure_masks import NoteCallback, Roi, StructureSet, roi_mask
from lnsegfm.imaging.dicom.structure_set import mismatch, note_on_other_series
from lnsegfm.imaging.grid import Grid

WHOLE_PATIENT = frozenset({"body", "external", "skin", "patient", "outline"})
_NO_CONTOURS = "no contours were stored for it."
_LOST = ("above or below the series", "lies beside the image", "passed over: it has no number")
_DRAWN_HERE = "Look whether it was drawn on this series"


@dataclass(frozen=True)
class AnnotatedStructure:
    """One structure or segment on one series.

    Args:
        noun: ``structure`` or ``segment``.
        name: What it is called.
        file: The file that holds it.
        mask: Gives its voxels on the grid of its series, boolean (z, y, x), and tells what was passed over; raises
            DataError where it cannot be turned into voxels.
        points: It consists of points only, such as an isocentre, and has no voxels by its nature.
    """

    noun: str
    name: str
    file: Path
    mask: Callable[[NoteCallback], np.ndarray] = field(repr=False)
    points: bool = False


@dataclass(frozen=True)
class TreeAnnotations:
    """Everything that was drawn on the series of a tree.

    Args:
        on: The shapes of each series, by its place in the list of series.
        names: Names of the structures or segments of each file; none where it cannot be read.
    """

    on: tuple[tuple[AnnotatedStructure, ...], ...]
    names: dict[Path, list[str]]


def read_annotations(found: SeriesIndex, findings: list[Finding]) -> TreeAnnotations:
    """Read what was drawn, and add to ``findings`` what is wrong with the files and whose series are not there."""
    on: list[list[AnnotatedStructure]] = [[] for _ in found.series]
    names: dict[Path, list[str]] = {path: [] for path in (*found.structures, *found.segmentations)}
    for path in found.structures:
        try:
            structures = read_rtstruct(path)
        except DataError as error:
            findings.append(from_sentence("structure", "error", "", path, str(error)))
            continue
        names[path] = list(structures.names)
        findings += _notes("", path, (note for note in structures.notes if not note.endswith(_NO_CONTOURS)))
        findings += [
            Finding("structure-empty", "note", "", path, f"structure {roi.name} has no contour", _IF_ABSENT)
            for roi in structures.rois
            if not roi.contours and not roi.damage
        ]
        for k in _series_of(structures, found.series, path, findings):
            on[k] += _rois(structures, path, found.series[k].grid)
    for path in found.segmentations:
        try:
            segments = read_seg(path)
        except DataError as error:
            findings.append(from_sentence("segmentation", "error", "", path, str(error)))
            continue
        names[path] = list(segments.names)
        uids, frame = segments.referenced_series_uids, segments.frame_of_reference_uid
        named = [k for k, series in enumerate(found.series) if series.uid in uids]
        framed = [k for k, series in enumerate(found.series) if frame and series.frame_of_reference_uid == frame]
        if not (named or framed):
            findings.append(_no_series("segmentation", path, uids))
        for k in named or framed:
            for segment in segments.segments:
                grid, uid = found.series[k].grid, found.series[k].frame_of_reference_uid

                def mask(_: NoteCallback, number: int = segment.number, grid: Grid = grid, uid: str = uid, of=segments):  # type: ignore[no-untyped-def]
                    return segment_mask(of, number, grid, frame_of_reference_uid=uid)

                on[k].append(AnnotatedStructure("segment", segment.label, path, mask))
    return TreeAnnotations(tuple(map(tuple, on)), names)


def judge_structures(
    case: str, shapes: Sequence[AnnotatedStructure], image: tuple[np.ndarray, Grid] | None, grid: Grid
) -> Iterator[Finding]:
    """What is odd about the shapes of a series.

    Args:
        case: Name of the series.
        shapes: What was drawn on it.
        image: Its HU (z, y, x) and grid; None where they are no HU, so that air and body cannot be told.
        grid: Of the series.
    """
    body = find_body(*image) if shapes and image is not None else None
    centres: dict[Path, dict[str, float]] = {}
    for shape in shapes:
        told: list[str] = []
        try:
            mask = shape.mask(told.append)
        except DataError as error:
            kind = "structure" if shape.noun == "structure" else "segmentation"
            yield from_sentence(kind, "error", case, shape.file, str(error))
            continue
        yield from _notes(case, shape.file, told)
        named = f"{shape.noun} {shape.name}"
        voxels = int(np.count_nonzero(mask))
        if not voxels:
            if shape.noun == "segment":
                yield Finding("structure-empty", "note", case, shape.file, f"{named} has no voxel", _IF_ABSENT)
            elif not shape.points:
                what = f"{named} holds the centre of no voxel of the series"
                yield Finding("structure-empty", "warning", case, shape.file, what, _DRAWN_HERE)
            continue
        if shape.name.lower().strip() in WHOLE_PATIENT:
            continue
        yield from judge_fragments(case, shape.file, named, mask, grid)
        if (x := centre_x_mm(mask, 1, grid)) is not None:
            centres.setdefault(shape.file, {})[shape.name] = x
        if image is not None:
            yield from judge_air(case, shape.file, named, image[0][mask])
        if body is not None:
            outside = body.outside(mask.astype(np.uint8)).get(1, 0)
            yield from judge_place(case, shape.file, named, outside, voxels)
    for file, own in centres.items():
        yield from judge_sides(case, file, "structure", swapped(own, side_pairs(own)))


def _series_of(structures: StructureSet, series: Sequence[Series], path: Path, findings: list[Finding]) -> list[int]:
    """The places of the series that a structure set was drawn on: those that it names, else those of its frame."""
    fitting = [k for k, one in enumerate(series) if mismatch(structures, one) is None]
    named = [k for k in fitting if series[k].uid in structures.referenced_series_uids]
    if not fitting:
        findings.append(_no_series("structure set", path, structures.referenced_series_uids))
    if not named:
        lines = (note_on_other_series(structures, series[k]) for k in fitting)
        findings += _notes("", path, (line for line in lines if line is not None))
    return named or fitting


def _rois(structures: StructureSet, path: Path, grid: Grid) -> Iterator[AnnotatedStructure]:
    for roi in structures.rois:
        if not roi.contours and not roi.damage:
            continue
        points = all(contour.kind == "POINT" for contour in roi.contours)
        yield AnnotatedStructure("structure", roi.name, path, partial(_roi_mask, roi, grid), points)


def _roi_mask(roi: Roi, grid: Grid, on_note: NoteCallback) -> np.ndarray:
    return roi_mask(roi, grid, on_note=on_note)


def _no_series(kind: str, path: Path, uids: Sequence[str]) -> Finding:
    named = ", ".join(uids) or "none that it names"
    what = f"a {kind} whose series is not here, or is not usable ({named})"
    return Finding("no-series", "error", "", path, what, "Add the series it was drawn on")


def _notes(case: str, file: Path, lines: Sequence[str] | Iterator[str]) -> list[Finding]:
    found = []
    for line in lines:
        severity: Severity = "warning" if any(words in line for words in _LOST) else "note"
        remedy = _DRAWN_HERE if severity == "warning" else "Look at it on its slices if it matters"
        found.append(from_sentence("contours", severity, case, file, line, remedy))
    return found


_IF_ABSENT = "Nothing where it is absent; else draw it"
