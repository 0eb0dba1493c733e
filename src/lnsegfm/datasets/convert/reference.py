"""The reference of a scan: which annotations it is taken from, and its voxels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lnsegfm.datasets.convert.conversion_plan import LoadedScan, as_stored_hu, count_voxels, fingerprint_of, labels_of
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.rois import match_rois, normalise_name
from lnsegfm.imaging.dicom.structure_set import StructureSet, note_on_other_series

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series


@dataclass(frozen=True)
class ReferenceChoice:
    """The annotations that a case's reference is taken from.

    Args:
        parts: Annotations, and for each ``NAME=label`` of every structure of it that is taken.
        passed_over: Number of annotations of the same series that match too and give nothing: older ones, and those in
            which nothing is drawn.
    """

    parts: tuple[tuple[Annotation, tuple[str, ...]], ...]
    passed_over: int = 0


def choose_reference(annotations: Sequence[Annotation], patterns: Sequence[str]) -> ReferenceChoice | None:
    """For each label the newest annotation that has it; None where nothing matches.

    A later plan of the same scan that does not hold a structure, or holds its name alone, does not hide an earlier one
    in which it is drawn, and labels may come from files of their own.

    Args:
        annotations: Newest first.
        patterns: ``NAME=label``.
    """
    matched = [match_rois(annotation.names, patterns, strict=False) for annotation in annotations]
    taken: dict[int, list[str]] = defaultdict(list)
    for label in labels_of(patterns).names:
        candidates = [k for k, each in enumerate(matched) if each.named(label)]
        contoured = [k for k in candidates if _names(annotations[k], matched[k].labels, label)]
        if candidates:
            newest = (contoured or candidates)[0]
            names = _names(annotations[newest], matched[newest].labels, label) or matched[newest].named(label)
            taken[newest] += [f"{_pattern_for(name)}={label}" for name in dict.fromkeys(names)]
    if not taken:
        return None
    parts = tuple((annotations[k], tuple(names)) for k, names in sorted(taken.items()))
    return ReferenceChoice(parts, sum(any(each.labels) for each in matched) - len(parts))


def _names(annotation: Annotation, labels: Sequence[str | None], label: str) -> list[str]:
    """Names of the structures of a label that have contours."""
    rows = zip(annotation.names, labels, annotation.has_contours, strict=True)
    return [name for name, given, contoured in rows if given == label and contoured]


def _pattern_for(name: str) -> str:
    """A pattern for the structures of this name: one that is called "LN*" is no wildcard, and some have no name."""
    if normalise_name(name) and escape(name) == name:
        return name
    return escape(normalise_name(name)) or "_"


def load_case(series: Series, chosen: ReferenceChoice, labels: Mapping[str, int]) -> LoadedScan:
    """Read a series and the reference that was chosen for it; where labels overlap, the lower value has the voxel.

    Raises:
        DataError: One of them cannot be read.
    """
    scan = load_scan(series)
    notes = list(scan.notes)
    mask = np.zeros(series.grid.shape, np.uint8)
    for annotation, names in chosen.parts:
        if line := note_on_other_series(StructureSet("", annotation.series_uids, ()), series):
            notes.append(line)
        try:
            part = annotation_mask(annotation, series, names, labels, notes.append)
        except DataError as error:  # it names the structure; which scan, only the series' UID tells the user
            raise DataError(f"Series {series.uid or 'without UID'}: {error}") from None
        if shared := int(np.count_nonzero((part > 0) & (mask > 0))):  # each label is of one file
            notes.append(f"{shared} voxels have labels of two files: given to the label that was named first")
        mask = np.where((part > 0) & ((mask == 0) | (part < mask)), part, mask)
    if chosen.passed_over:
        notes.append(
            f"passed over: {chosen.passed_over} more structure files of this scan, older or with nothing drawn"
        )
    return LoadedScan(scan.images, series.grid, mask, (*notes, *_absent_labels(mask, chosen, labels)))


def _absent_labels(mask: np.ndarray, chosen: ReferenceChoice, labels: Mapping[str, int]) -> list[str]:
    """A line for each label that a case does not have: a network would learn that it is not there."""
    counts = count_voxels(mask, max(labels.values()))
    named = {name.rpartition("=")[2] for _, names in chosen.parts for name in names}
    lines = []
    for label in (label for label, value in labels.items() if not counts[value]):
        why = "no voxel of the scan is its own" if label in named else "no structure gives it"
        lines.append(f"{label} is background everywhere in this case: {why}")
    return lines


def load_scan(series: Series) -> LoadedScan:
    """Read a series without a reference."""
    from lnsegfm.imaging.dicom.series import read_series

    return LoadedScan((as_stored_hu(read_series(series)),), series.grid, None, tuple(series.notes))


def annotation_mask(
    annotation: Annotation,
    series: Series,
    names: Sequence[str],
    labels: Mapping[str, int],
    on_note: Callable[[str], None] | None = None,
) -> np.ndarray:
    """Label values (z, y, x) on the grid of a series.

    Args:
        annotation: The RTSTRUCT or SEG.
        series: The scan.
        names: ``NAME=label`` for each structure that is wanted.
        labels: Value of each label.
        on_note: Is given a line about everything that was passed over.

    Raises:
        DataError: The file cannot be read, or its structures are not of this series.
    """
    frame = series.frame_of_reference_uid
    if annotation.kind == "SEG":
        from lnsegfm.imaging.dicom.seg_read import read_seg, segments_mask

        segments = read_seg(annotation.path)
        return segments_mask(segments, series.grid, names, labels, frame_of_reference_uid=frame, on_note=on_note)
    from lnsegfm.imaging.dicom.rtstruct_read import read_rtstruct
    from lnsegfm.imaging.dicom.structure_masks import structures_mask

    structures = read_rtstruct(annotation.path)
    return structures_mask(structures, series.grid, names, labels, frame_of_reference_uid=frame, on_note=on_note)


def fingerprint(series: Series, chosen: ReferenceChoice | None = None, files: Iterable[Path] = ()) -> str:
    """Changes when slices come or go, when a structure file changes, and when other structures are taken."""
    slices = [[piece.sop_instance_uid, piece.frame, list(piece.position_mm)] for piece in series.slices]
    parts = [[annotation.digest, list(names)] for annotation, names in chosen.parts] if chosen else []
    return fingerprint_of([slices, series.straightened, parts], files)


def private_words(series: Series, chosen: ReferenceChoice | None = None) -> tuple[str, ...]:
    """Words of a case's source that a dataset must not hold: names, descriptions, UIDs, files."""
    annotations = [annotation for annotation, _ in chosen.parts] if chosen else []
    paths = {*(piece.path for piece in series.slices), *(annotation.path for annotation in annotations)}
    return (
        series.patient_id, series.description, series.uid, series.study_uid, series.frame_of_reference_uid,
        *(word for path in paths for word in (path.name, path.stem)),
        *(word for each in annotations for word in (each.description, each.uid, *each.series_uids, *each.names)),
    )  # fmt: skip
