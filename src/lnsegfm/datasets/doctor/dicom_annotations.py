"""Structure sets and segmentations of a DICOM tree: which series they belong to, and what is suspicious in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.body import Body, find_body
from lnsegfm.datasets.doctor.finding import Finding, Severity, from_sentence
from lnsegfm.datasets.doctor.mask_checks import judge_air, judge_fragments, judge_place, judge_sides
from lnsegfm.datasets.doctor.sides import centre_x_mm, side_pairs, swapped
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotated_series import AnnotatedTree, pair_annotations
from lnsegfm.imaging.dicom.rois import NoteCallback
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import Segmentation, read_seg, segment_mask
from lnsegfm.imaging.dicom.series import Series, SeriesIndex
from lnsegfm.imaging.dicom.structure_masks import Roi, StructureSet, roi_mask
from lnsegfm.imaging.dicom.structure_set import note_on_other_series
from lnsegfm.imaging.grid import Grid

WHOLE_PATIENT = frozenset({"body", "external", "skin", "patient", "outline"})
_NO_CONTOURS = "no contours were stored for it."
_LOST = ("above or below the series", "lies outside the image", "passed over: it has no number")
_CHECK_SERIES = "Check whether it was drawn on this series"
_IF_ABSENT = "Nothing where it is absent; else draw it"


@dataclass(frozen=True)
class AnnotatedStructure:
    """One structure or segment on one series.

    Args:
        noun: ``structure`` or ``segment``.
        name: Its name.
        file: The file that holds it.
        mask: Gives its voxels on the grid of its series, boolean (z, y, x), and reports what was passed over; raises
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
    """The structures and segments of all series of a folder.

    Args:
        on: Those of each series, by its position in the list of series.
        names: Names of the structures or segments of each file; none where it cannot be read.
    """

    on: tuple[tuple[AnnotatedStructure, ...], ...]
    names: dict[Path, list[str]]


def read_annotations(index: SeriesIndex, findings: list[Finding]) -> TreeAnnotations:
    """Read structure sets and segmentations; add to ``findings`` what is wrong with them, and those without a series.

    They belong to the series that a conversion would give them to (`pair_annotations`).
    """
    tree = pair_annotations(index)
    on: list[list[AnnotatedStructure]] = [[] for _ in index.series]
    names: dict[Path, list[str]] = {path: [] for path in (*index.structures, *index.segmentations)}
    unreadable = dict(tree.unreadable)
    for path in names:
        is_structure_set = path in index.structures
        try:
            content = read_rtstruct(path) if is_structure_set else read_seg(path)
            if path in unreadable:
                raise DataError(unreadable[path])
        except DataError as error:
            findings.append(_unusable("structure" if is_structure_set else "segment", "", path, error))
            continue
        names[path] = list(content.names)
        if isinstance(content, StructureSet):
            findings += _notes_of_structure_set(content, path)
        for k in tree.series_of(path):
            series = index.series[k]
            findings += _other_series(tree, path, series)
            on[k] += _rois(content, path, series) if isinstance(content, StructureSet) else _segments(content, series)
    findings += _without_series(tree)
    return TreeAnnotations(tuple(map(tuple, on)), names)


def judge_structures(
    case: str, structures: Sequence[AnnotatedStructure], image: tuple[np.ndarray, Grid] | None, grid: Grid
) -> Iterator[Finding]:
    """What is suspicious about the structures and segments of a series.

    Args:
        case: Name of the series.
        structures: Those of the series.
        image: Its HU (z, y, x) and grid; None where its values are no HU, so that air and body cannot be found.
        grid: Of the series.
    """
    body = find_body(*image) if structures and image is not None else None
    centres: dict[Path, dict[str, float]] = {}
    for structure in structures:
        notes: list[str] = []
        try:
            mask = structure.mask(notes.append)
        except DataError as error:
            yield _unusable(structure.noun, case, structure.file, error)
            continue
        yield from _note_findings(case, structure.file, notes)
        if not mask.any():
            yield from _empty(case, structure)
        elif not is_whole_patient(structure):
            yield from _judge_mask(case, structure, mask, image, grid, body)
            if (x := centre_x_mm(mask, 1, grid)) is not None:
                centres.setdefault(structure.file, {})[structure.name] = x
    for file, own in centres.items():
        yield from judge_sides(case, file, "structure", swapped(own, side_pairs(own)))


def is_whole_patient(structure: AnnotatedStructure) -> bool:
    """Whether a structure is the outline of the patient, by its name: it is neither judged nor shown."""
    return structure.name.lower().strip() in WHOLE_PATIENT


def _unusable(noun: str, case: str, file: Path, error: DataError) -> Finding:
    if noun == "structure":
        return from_sentence("structure", "error", case, file, str(error))
    return from_sentence("segmentation", "error", case, file, str(error))


def _empty(case: str, structure: AnnotatedStructure) -> Iterator[Finding]:
    named = f"{structure.noun} {structure.name}"
    if structure.noun == "segment":
        yield Finding("structure-empty", "note", case, structure.file, f"{named} has no voxel", _IF_ABSENT)
    elif not structure.points:
        what = f"{named} holds the centre of no voxel of the series"
        yield Finding("structure-empty", "warning", case, structure.file, what, _CHECK_SERIES)


def _judge_mask(
    case: str,
    structure: AnnotatedStructure,
    mask: np.ndarray,
    image: tuple[np.ndarray, Grid] | None,
    grid: Grid,
    body: Body | None,
) -> Iterator[Finding]:
    named = f"{structure.noun} {structure.name}"
    yield from judge_fragments(case, structure.file, named, mask, grid)
    if image is not None:
        yield from judge_air(case, structure.file, named, image[0][mask])
    if body is not None:
        outside = body.outside(mask.astype(np.uint8)).get(1, 0)
        yield from judge_place(case, structure.file, named, outside, int(np.count_nonzero(mask)))


def _rois(structures: StructureSet, path: Path, series: Series) -> Iterator[AnnotatedStructure]:
    for roi in structures.rois:
        if not roi.contours and not roi.damage:
            continue
        points = all(contour.kind == "POINT" for contour in roi.contours)
        yield AnnotatedStructure("structure", roi.name, path, partial(_roi_mask, roi, series), points)


def _roi_mask(roi: Roi, series: Series, on_note: NoteCallback) -> np.ndarray:
    return roi_mask(roi, series.grid, frame_of_reference_uid=series.frame_of_reference_uid, on_note=on_note)


def _segments(segmentation: Segmentation, series: Series) -> Iterator[AnnotatedStructure]:
    for segment in segmentation.segments:
        mask = partial(_segment_mask, segmentation, segment.number, series)
        yield AnnotatedStructure("segment", segment.label, segmentation.path, mask)


def _segment_mask(segmentation: Segmentation, number: int, series: Series, _: NoteCallback) -> np.ndarray:
    return segment_mask(segmentation, number, series.grid, frame_of_reference_uid=series.frame_of_reference_uid)


def _notes_of_structure_set(structures: StructureSet, path: Path) -> list[Finding]:
    findings = _note_findings("", path, (note for note in structures.notes if not note.endswith(_NO_CONTOURS)))
    return findings + [
        Finding("structure-empty", "note", "", path, f"structure {roi.name} has no contour", _IF_ABSENT)
        for roi in structures.rois
        if not roi.contours and not roi.damage
    ]


def _other_series(tree: AnnotatedTree, path: Path, series: Series) -> list[Finding]:
    """A note where an annotation names other series than the one that it is given to."""
    named = next(a.series_uids for several in tree.by_series.values() for a in several if a.path == path)
    line = note_on_other_series(StructureSet("", named, ()), series)
    return _note_findings("", path, [line] if line is not None else [])


def _without_series(tree: AnnotatedTree) -> Iterator[Finding]:
    for annotation, why in tree.orphans:
        noun = "structure set" if annotation.kind == "RTSTRUCT" else "segmentation"
        named = f" ({', '.join(annotation.series_uids)})" if annotation.series_uids else ""
        what = f"a {noun} that belongs to no usable series: {why}{named}"
        yield Finding("no-series", "error", "", annotation.path, what, "Add the series it was drawn on")


def _note_findings(case: str, file: Path, lines: Iterable[str]) -> list[Finding]:
    findings = []
    for line in lines:
        severity: Severity = "warning" if any(words in line for words in _LOST) else "note"
        remedy = _CHECK_SERIES if severity == "warning" else "Look at it on its slices if it matters"
        findings.append(from_sentence("contours", severity, case, file, line, remedy))
    return findings
