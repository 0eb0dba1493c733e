"""The reference of a scan: which annotations it is taken from, and its voxels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lnsegfm.datasets.convert.conversion_plan import LoadedScan, as_stored_hu, count_voxels, fingerprint_of
from lnsegfm.errors import DataError
from lnsegfm.imaging.dicom.annotation import Annotation
from lnsegfm.imaging.dicom.annotation_masks import annotation_mask
from lnsegfm.imaging.dicom.reference_choice import ReferenceChoice, weigh_structures
from lnsegfm.imaging.dicom.rois import NO_VOXEL

if TYPE_CHECKING:
    from lnsegfm.imaging.dicom.series_index import Series


def choose_reference(
    annotations: Sequence[Annotation], patterns: Sequence[str], *, accept_automatic: bool = False
) -> ReferenceChoice | None:
    """The structures that the reference of a scan is taken from (`weigh_structures`); None where there are none.

    Args:
        annotations: Of the scan, newest first.
        patterns: ``NAME=label``.
        accept_automatic: Take what an algorithm drew.
    """
    choice = weigh_structures(annotations, patterns, accept_automatic=accept_automatic)
    return choice if choice.parts else None


def load_case(
    series: Series,
    chosen: ReferenceChoice,
    labels: Mapping[str, int],
    told: Sequence[str] = (),
    *,
    fill_between: bool = False,
) -> LoadedScan:
    """Read a series and the reference that was chosen for it; where labels overlap, the lower value has the voxel.

    Args:
        series: The scan.
        chosen: What the reference is taken from.
        labels: Value of each label.
        told: Remarks on the choice, one line each.
        fill_between: Fill in slices that were skipped between contoured ones.

    Raises:
        DataError: One of them cannot be read.
    """
    scan = load_scan(series)
    notes = [*scan.notes, *told]
    mask = np.zeros(series.grid.shape, np.uint8)
    for annotation, names in chosen.parts:
        try:
            part = annotation_mask(annotation, series, names, labels, notes.append, fill_between=fill_between)
        except DataError as error:  # it names the structure; which scan, only the series' UID tells the user
            raise DataError(f"Series {series.uid or 'without UID'}: {error}") from None
        both = (part > 0) & (mask > 0)
        if shared := int(np.count_nonzero(both & (part != mask))):
            notes.append(f"{shared} voxels have labels of two files: given to the label that was named first")
        if shared := int(np.count_nonzero(both & (part == mask))):
            notes.append(f"{shared} voxels are in structures of two files that have one label: counted once")
        mask = np.where((part > 0) & ((mask == 0) | (part < mask)), part, mask)
    notes += _absent_labels(mask, chosen, labels)
    reasons = [note.rstrip(".").replace(f" {NO_VOXEL}", ": ") for note in notes if NO_VOXEL in note]
    without_voxels = tuple(line[:1].lower() + line[1:] for line in reasons)
    return LoadedScan(scan.images, series.grid, mask, tuple(notes), without_voxels)


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


def fingerprint(series: Series, chosen: ReferenceChoice | None = None, files: Iterable[Path] = ()) -> str:
    """Changes when slices come or go, when a structure file changes, and when other structures are taken."""
    slices = [[piece.sop_instance_uid, piece.frame, list(piece.position_mm)] for piece in series.slices]
    parts = [[annotation.digest, list(names)] for annotation, names in chosen.parts] if chosen else []
    return fingerprint_of([slices, series.straightened, series.uneven, parts], files)


def private_words(
    series: Series, chosen: ReferenceChoice | None = None, others: Sequence[Annotation] = ()
) -> tuple[str, ...]:
    """Words of a case's source that a dataset must not hold: names, descriptions, UIDs, files."""
    annotations = (*(chosen.annotations if chosen else ()), *others)
    paths = {*(piece.path for piece in series.slices), *(annotation.path for annotation in annotations)}
    return (
        series.patient_id, series.description, series.uid, series.study_uid, *series.frames_of_reference,
        *(word for path in paths for word in (path.name, path.stem)),
        *(word for each in annotations for word in (each.description, each.uid, *each.series_uids, *each.names)),
        *(uid for each in annotations for uid in each.frame_of_reference_uids),
    )  # fmt: skip
