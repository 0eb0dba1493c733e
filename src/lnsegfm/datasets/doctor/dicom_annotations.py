"""Structure sets and segmentations of a DICOM tree: which series they belong to, and what is suspicious in them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from lnsegfm.datasets.doctor.body import Body, find_body
from lnsegfm.datasets.doctor.finding import Finding, Severity, from_sentence
from lnsegfm.datasets.doctor.mask_checks import judge_air, judge_fragments, judge_place, judge_sides
from lnsegfm.datasets.doctor.sides import centre_x_mm, swapped
from lnsegfm.datasets.sided_labels import side_pairs
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotated_series import PairingOptions, pair_annotations
from lnsegfm.imaging.dicom.rois import NO_VOXEL, NoteCallback
from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
from lnsegfm.imaging.dicom.seg_read import Segmentation, read_seg, segment_mask
from lnsegfm.imaging.dicom.series import Series, SeriesIndex
from lnsegfm.imaging.dicom.structure_masks import Roi, StructureSet, image_heights, roi_mask
from lnsegfm.imaging.dicom.tree_references import TreeReferences, tree_references
from lnsegfm.imaging.dicom.uneven_stack import (
    mask_on_planes,
    roi_on_slices,
    segmentation_on_slices,
    slice_grid,
)
from lnsegfm.imaging.grid import Grid

WHOLE_PATIENT = frozenset({"body", "external", "skin", "patient", "outline"})
_NO_CONTOURS = "no contours were stored for it."
_LOST = ("above or below the series", "passed over: it has no number")
_SKIPPED = ("skipped between contoured slices", " on every ")
_DOUBTFUL = ("overlap in part", "nothing is read there", "read as holes and leave", "(ContourImageSequence)")
_CHECK_SERIES = "Check whether it was drawn on this series"
_FILL = "Draw what is missing, or convert with --fill-between"
_LOOK = "Look at it on its slices"
_IF_ABSENT = "Nothing where it is absent; else draw it"

Verdicts = Mapping[tuple[int | None, str], bool]
"""Whether the reference is taken from a structure, by its number and name."""


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
        taken: The reference of its series is taken from it.
    """

    noun: str
    name: str
    file: Path
    mask: Callable[[NoteCallback], np.ndarray] = field(repr=False)
    points: bool = False
    taken: bool = True


@dataclass(frozen=True)
class TreeAnnotations:
    """The structures and segments of all series of a folder.

    Args:
        on: Those of each series, by its position in the list of series.
        names: Names of the structures or segments of each file; none where it cannot be read.
        references: What the reference of each series would be taken from.
    """

    on: tuple[tuple[AnnotatedStructure, ...], ...]
    names: dict[Path, list[str]]
    references: TreeReferences


def read_annotations(
    index: SeriesIndex,
    findings: list[Finding],
    patterns: Sequence[str] = (),
    options: PairingOptions | None = None,
) -> TreeAnnotations:
    """Read structure sets and segmentations; add to ``findings`` what is wrong with their files.

    They belong to the series that a conversion would give them to, and a reference is taken from those that it would
    take it from (`tree_references`). What a conversion fails at is an error.

    Args:
        index: Everything that the folder holds.
        findings: Where to.
        patterns: ``NAME=label`` of the structures that are wanted; all of them unless given.
        options: What pairs structures with series beyond their UIDs, and whether what an algorithm drew is taken.
    """
    tree = pair_annotations(index, options)
    references = tree_references(tree, patterns)
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
            taken = path in unreadable or references.needs(path)
            findings.append(_unusable("structure" if is_structure_set else "segment", "", path, error, taken))
            continue
        names[path] = list(content.names)
        if isinstance(content, StructureSet):
            findings += _notes_of_structure_set(content, path)
        for k in tree.series_of(path):
            verdicts = {
                (each.structure.number, each.structure.name): each.taken
                for each in references.on[k].choice.candidates
                if each.annotation.path == path
            }
            if isinstance(content, StructureSet):
                on[k] += _rois(content, path, index.series[k], verdicts)
            else:
                on[k] += _segments(content, path, index.series[k], verdicts)
    return TreeAnnotations(tuple(map(tuple, on)), names, references)


def judge_structures(
    case: str,
    structures: Sequence[AnnotatedStructure],
    image: tuple[np.ndarray, Grid] | None,
    grid: Grid,
    *,
    has_reference: bool = False,
    named: bool = False,
) -> Iterator[Finding]:
    """What is suspicious about the structures and segments of a series.

    Args:
        case: Name of the series.
        structures: Those of the series.
        image: Its HU (z, y, x) and grid; None where its values are no HU, so that air and body cannot be found.
        grid: Of the series.
        has_reference: Some of them are taken as its reference, which must then have a voxel.
        named: The structures that are wanted were named: one that cannot be read is an error. Otherwise it is one where
            no other gives the reference a voxel, for nobody may want it.
    """
    empty, unusable, causes = has_reference, list[tuple[AnnotatedStructure, DataError]](), list[str]()
    body = find_body(*image) if structures and image is not None else None
    centres: dict[Path, dict[str, float]] = {}
    for structure in structures:
        notes: list[str] = []
        try:
            mask = structure.mask(notes.append)
        except DataError as error:
            unusable.append((structure, error))
            continue
        empty = empty and not (structure.taken and mask.any())
        reasons = [note for note in notes if NO_VOXEL in note]
        causes += [f"{note.rstrip('.').replace(f' {NO_VOXEL}', ': ')}" for note in reasons if structure.taken]
        yield from _note_findings(case, structure.file, [note for note in notes if note not in reasons])
        if not mask.any():
            yield from _empty(case, structure, reasons)
        elif not is_whole_patient(structure):
            yield from _judge_mask(case, structure, mask, image, grid, body)
            if (x := centre_x_mm(mask == 1, grid)) is not None:
                centres.setdefault(structure.file, {})[structure.name] = x
    for file, own in centres.items():
        yield from judge_sides(case, file, "structure", swapped(own, side_pairs(own)))
    for structure, refused in unusable:
        yield _unusable(structure.noun, case, structure.file, refused, structure.taken and (named or empty))
    if empty and not any(structure.taken for structure, _ in unusable):
        why = "; ".join(f"{cause[:1].lower()}{cause[1:]}" for cause in dict.fromkeys(causes))
        what = f"its reference is empty: {why or 'nothing that is taken as reference has a voxel within the scan'}"
        yield Finding("reference-empty", "error", case, None, what, "Leave the case out, or outline it")


def is_whole_patient(structure: AnnotatedStructure) -> bool:
    """Whether a structure is the outline of the patient, by its name: it is neither judged nor shown."""
    return structure.name.lower().strip() in WHOLE_PATIENT


def _unusable(noun: str, case: str, file: Path, error: DataError, taken: bool = True) -> Finding:
    severity: Severity = "error" if taken else "warning"
    if noun == "structure":
        return from_sentence("structure", severity, case, file, str(error))
    return from_sentence("segmentation", severity, case, file, str(error))


def _empty(case: str, structure: AnnotatedStructure, reasons: Sequence[str]) -> Iterator[Finding]:
    named = f"{structure.noun} {structure.name}"
    if structure.noun == "segment":
        yield Finding("structure-empty", "note", case, structure.file, f"{named} has no voxel", _IF_ABSENT)
    elif not structure.points:
        why = reasons[0].partition(NO_VOXEL)[2].rstrip(".") if reasons else "it holds the centre of no voxel"
        remedy = _CHECK_SERIES if "outside the image" in why else _LOOK
        yield Finding("structure-empty", "warning", case, structure.file, f"{named} {NO_VOXEL}{why}", remedy)


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


def _rois(structures: StructureSet, path: Path, series: Series, verdicts: Verdicts) -> Iterator[AnnotatedStructure]:
    for roi in structures.rois:
        if (roi.number, roi.name) in verdicts and (roi.contours or roi.damage):
            points = all(contour.kind == "POINT" for contour in roi.contours)
            mask = partial(_roi_mask, roi, series)
            yield AnnotatedStructure("structure", roi.name, path, mask, points, verdicts[roi.number, roi.name])


def _roi_mask(roi: Roi, series: Series, on_note: NoteCallback) -> np.ndarray:
    images = image_heights(series)
    mask = roi_mask(roi_on_slices(roi, series), slice_grid(series), images=images, on_note=on_note)
    return mask_on_planes(mask, series)


def _segments(
    segmentation: Segmentation, path: Path, series: Series, verdicts: Verdicts
) -> Iterator[AnnotatedStructure]:
    for segment in segmentation.segments:
        if (segment.number, segment.label) in verdicts:
            mask = partial(_segment_mask, segmentation, segment.number, series)
            yield AnnotatedStructure(
                "segment", segment.label, path, mask, taken=verdicts[segment.number, segment.label]
            )


def _segment_mask(segmentation: Segmentation, number: int, series: Series, on_note: NoteCallback) -> np.ndarray:
    mask = segment_mask(segmentation_on_slices(segmentation, series), number, slice_grid(series), on_note=on_note)
    return mask_on_planes(mask, series)


def _notes_of_structure_set(structures: StructureSet, path: Path) -> list[Finding]:
    findings = _note_findings("", path, (note for note in structures.notes if not note.endswith(_NO_CONTOURS)))
    return findings + [_without_contours(roi, path) for roi in structures.rois if not roi.contours and not roi.damage]


def _without_contours(roi: Roi, path: Path) -> Finding:
    what = f"structure {roi.name} has no contour"
    if "which no structure has" in roi.no_contours:
        return Finding("structure-empty", "warning", "", path, f"{what}: {roi.no_contours}", "Export it again")
    return Finding("structure-empty", "note", "", path, what, _IF_ABSENT)


def _note_findings(case: str, file: Path, lines: Iterable[str]) -> list[Finding]:
    findings = []
    for line in lines:
        severity, remedy = _severity(line)
        findings.append(from_sentence("contours", severity, case, file, line, remedy))
    return findings


def _severity(line: str) -> tuple[Severity, str]:
    """How grave it is what a line says, and what to do."""
    for remedy, several in ((_CHECK_SERIES, _LOST), (_FILL, _SKIPPED), (_LOOK, _DOUBTFUL)):
        if any(words in line for words in several):
            return "warning", remedy
    return "note", f"{_LOOK} if it matters"
