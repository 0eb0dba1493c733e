"""Which voxels the structures of a structure set cover: masks of one structure, and of labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lnsegfm.imaging.dicom.contour_planes import to_index
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rois import NO_VOXEL, NoteCallback, labels_by_priority, match_rois, overlap_notes
from lnsegfm.imaging.dicom.structure_set import Contour, ImageOfSeries, Roi, StructureSet, mismatch
from lnsegfm.imaging.dicom.structure_voxels import RoiVoxels, image_heights, roi_voxels
from lnsegfm.imaging.grid import Grid

__all__ = [
    "Contour", "Roi", "RoiVoxels", "StructureSet", "image_heights", "mismatch", "roi_mask", "roi_voxels",
    "structures_mask", "to_index",
]  # fmt: skip


def roi_mask(
    roi: Roi,
    grid: Grid,
    *,
    frame_of_reference_uid: str = "",
    images: Mapping[ImageOfSeries, float] | None = None,
    fill_between: bool = False,
    on_note: NoteCallback | None = None,
) -> np.ndarray:
    """The voxels of a structure as booleans (z, y, x) on ``grid``.

    Args:
        roi: The structure.
        grid: Of the mask.
        frame_of_reference_uid: Of the series; a structure of another one is refused. Empty compares nothing.
        images: As in ``roi_voxels``.
        fill_between: As in ``roi_voxels``.
        on_note: Is given a line about everything that was passed over, moved or read by a rule.

    Raises:
        DicomError: As ``roi_voxels``, or the structure is of another frame of reference.
    """
    roi_part = _voxels_in_frame(roi, grid, frame_of_reference_uid, images, fill_between)
    _report_notes(_all_notes(roi, roi_part), on_note)
    mask = np.zeros(grid.shape, dtype=bool)
    if roi_part.box is not None:
        mask[roi_part.box] = roi_part.voxels
    return mask


def structures_mask(
    structures: StructureSet,
    grid: Grid,
    patterns: Sequence[str],
    labels: Mapping[str, int],
    *,
    priority: Sequence[str] | None = None,
    frame_of_reference_uid: str = "",
    strict: bool = True,
    images: Mapping[ImageOfSeries, float] | None = None,
    fill_between: bool = False,
    on_note: NoteCallback | None = None,
) -> np.ndarray:
    """A mask of all structures that patterns name.

    Args:
        structures: From ``read_rtstruct``.
        grid: Of the mask.
        patterns: Such as ``LN*=lymph_node`` (see ``match_rois``). A label gets the union of its structures.
        labels: The value of each label, 1 to 255.
        priority: Labels; where two overlap the voxel is the first one's. Labels left out come after these. In the order
            of the patterns unless given.
        frame_of_reference_uid: Of the series; a matched structure of another one is refused. Empty compares nothing.
        strict: Refuse a pattern that matches no name; otherwise it is reported.
        images: As in ``roi_voxels``.
        fill_between: As in ``roi_voxels``.
        on_note: Is given a line about everything that was passed over, moved, read by a rule or overlaps, and about
            each structure that has no voxel.

    Returns:
        Label values (z, y, x), uint8, 0 where nothing is.

    Raises:
        DicomError: A label without a value, or a structure that cannot be turned into voxels.
        DataError: As ``match_rois``.
    """
    matched = match_rois(structures.names, patterns, strict=strict)
    _report_notes((f"Pattern {p}: no structure has such a name." for p in matched.unused), on_note)
    of_structures = {note for roi in structures.rois for note in roi.notes}
    _report_notes((note for note in structures.notes if note not in of_structures), on_note)
    order = labels_by_priority(matched, labels, priority)
    mask = np.zeros(grid.shape, dtype=np.uint8)
    overlaps: dict[tuple[str, str], int] = {}
    names = {value: label for label, value in labels.items()}
    wanted = [(label, roi) for label, roi in zip(matched.labels, structures.rois, strict=True) if label is not None]
    for label, roi in sorted(wanted, key=lambda pair: order.index(pair[0])):
        roi_part = _voxels_in_frame(roi, grid, frame_of_reference_uid, images, fill_between)
        _report_notes((*roi.notes, *_all_notes(roi, roi_part)), on_note)
        if roi_part.box is None:
            continue
        part, value = mask[roi_part.box], labels[label]
        taken = part[roi_part.voxels]
        for other in np.unique(taken[(taken != 0) & (taken != value)]):
            pair = (names[int(other)], label)
            overlaps[pair] = overlaps.get(pair, 0) + int(np.count_nonzero(taken == other))
        part[roi_part.voxels & (part == 0)] = value
    _report_notes(overlap_notes(overlaps), on_note)
    return mask


def _voxels_in_frame(
    roi: Roi,
    grid: Grid,
    frame_of_reference_uid: str,
    images: Mapping[ImageOfSeries, float] | None,
    fill_between: bool,
) -> RoiVoxels:
    if frame_of_reference_uid and roi.frame_of_reference_uid not in ("", frame_of_reference_uid):
        raise DicomError(
            f"Structure {roi.name!r}: its frame of reference {roi.frame_of_reference_uid} is not the series' "
            f"{frame_of_reference_uid}. Give the series that it was drawn on."
        )
    return roi_voxels(roi, grid, images=images, fill_between=fill_between)


def _all_notes(roi: Roi, read: RoiVoxels) -> list[str]:
    """The notes on a structure, and the reason where it has no voxel."""
    reason = [f"Structure {roi.name!r} {NO_VOXEL}{read.no_voxel}."] if read.no_voxel else []
    return [*read.notes, *reason]


def _report_notes(lines: Iterable[str], on_note: NoteCallback | None) -> None:
    for line in lines:
        if on_note is not None:
            on_note(line)
