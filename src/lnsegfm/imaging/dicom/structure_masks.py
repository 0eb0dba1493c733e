"""Which voxels the structures of a structure set cover.

A voxel belongs to a structure if its centre lies inside an odd number of the contours that are drawn for it on its
plane (`lnsegfm.imaging.dicom.contours`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.box import Box
from lnsegfm.imaging.dicom.contours import fill_polygons
from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.rois import NoteCallback, labels_by_priority, match_rois, overlap_notes
from lnsegfm.imaging.dicom.structure_set import CLOSED_TYPES, Contour, Roi, StructureSet, mismatch
from lnsegfm.imaging.grid import Grid

__all__ = ["Contour", "Roi", "RoiVoxels", "StructureSet", "mismatch", "roi_mask", "roi_voxels", "structures_mask"]

ON_PLANE = 0.05
"""Contours that lie this close, in slice distances, are on one plane; one this close to a slice is on it."""
TILT = 0.1
"""How far a contour may leave its plane, in slice distances: what rounded coordinates make of a planar one."""
_STEP = 10  # decimals of a voxel kept of coordinates: a point on a centre is there whatever the last bits say


@dataclass(frozen=True)
class RoiVoxels:
    """The voxels of a structure.

    Args:
        box: The part of the volume that holds them all; None where there are none.
        voxels: Booleans of the box's shape (z, y, x).
        notes: What was passed over or moved, one line each.
    """

    box: Box | None
    voxels: np.ndarray = field(repr=False)
    notes: tuple[str, ...] = ()


def roi_mask(
    roi: Roi, grid: Grid, *, frame_of_reference_uid: str = "", on_note: NoteCallback | None = None
) -> np.ndarray:
    """The voxels of a structure as booleans (z, y, x) on ``grid``.

    Args:
        roi: The structure.
        grid: Of the mask.
        frame_of_reference_uid: Of the series; a structure of another one is refused. Empty compares nothing.
        on_note: Is given a line about everything that was passed over or moved.

    Raises:
        DicomError: As ``roi_voxels``, or the structure is of another frame of reference.
    """
    roi_part = _voxels_in_frame(roi, grid, frame_of_reference_uid)
    _report_notes(roi_part.notes, on_note)
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
        on_note: Is given a line about everything that was passed over, moved or overlaps.

    Returns:
        Label values (z, y, x), uint8, 0 where nothing is.

    Raises:
        DicomError: A label without a value, or a structure that cannot be turned into voxels.
        DataError: As ``match_rois``.
    """
    matched = match_rois(structures.names, patterns, strict=strict)
    _report_notes((f"Pattern {p}: no structure has such a name." for p in matched.unused), on_note)
    order = labels_by_priority(matched, labels, priority)
    mask = np.zeros(grid.shape, dtype=np.uint8)
    overlaps: dict[tuple[str, str], int] = {}
    names = {value: label for label, value in labels.items()}
    wanted = [(label, roi) for label, roi in zip(matched.labels, structures.rois, strict=True) if label is not None]
    for label, roi in sorted(wanted, key=lambda pair: order.index(pair[0])):
        roi_part = _voxels_in_frame(roi, grid, frame_of_reference_uid)
        _report_notes(roi_part.notes, on_note)
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


def roi_voxels(roi: Roi, grid: Grid) -> RoiVoxels:
    """The voxels of a structure, and what was passed over.

    Contours between slices go to the nearest slice, at most half a slice distance away. Where several planes go to one
    slice the nearest counts, as it describes the slice best; a farther one adds only connected components that nothing
    nearer touches. Points, open contours, closed ones of fewer than three points, and exact repetitions are skipped.

    Raises:
        DicomError: The structure is damaged, a contour is not parallel to the slices, or none reaches a slice.
    """
    if roi.damage:
        raise DicomError(roi.damage)
    polygons, notes = _closed(roi, grid)
    if not polygons:
        return RoiVoxels(None, np.zeros((0, 0, 0), dtype=bool), tuple(notes))
    planes, moved = _by_slice(roi, polygons, grid.shape[0])
    box = _box([polygon for groups in planes.values() for _, group in groups for polygon in group], planes, grid)
    notes += moved
    if box is None:
        notes.append(f"Structure {roi.name!r} lies outside the image.")
        return RoiVoxels(None, np.zeros((0, 0, 0), dtype=bool), tuple(notes))
    along_z, along_y, along_x = box
    shape, corner = (along_y.stop - along_y.start, along_x.stop - along_x.start), (along_y.start, along_x.start)
    voxels = np.zeros((along_z.stop - along_z.start, *shape), dtype=bool)
    for k, groups in planes.items():
        for number, (_, group) in enumerate(groups):
            plane = fill_polygons([polygon[:, :2] for polygon in group], shape, corner)
            voxels[k - along_z.start] |= (
                plane if number == 0 else _separate_components(plane, voxels[k - along_z.start])
            )
    return RoiVoxels(box, voxels, tuple(notes))


def _closed(roi: Roi, grid: Grid) -> tuple[list[np.ndarray], list[str]]:
    """Closed contours in index coordinates (column, row, slice), and notes on what is left out."""
    skipped: dict[str, int] = {}
    kept: dict[bytes, np.ndarray] = {}
    for contour in roi.contours:
        if contour.kind not in CLOSED_TYPES:
            reason = "points" if contour.kind == "POINT" else f"of type {contour.kind or 'unknown'}"
        elif len(contour.points_mm) < 3:
            reason = "of fewer than three points"
        else:
            index = to_index(contour.points_mm, grid)
            if index.tobytes() not in kept:
                kept[index.tobytes()] = index
                continue
            reason = "exact repetitions"
        skipped[reason] = skipped.get(reason, 0) + 1
    lines = [
        f"Structure {roi.name!r}: {n} of {len(roi.contours)} contours are {reason}: passed over."
        for reason, n in skipped.items()
    ]
    return list(kept.values()), lines


def _by_slice(
    roi: Roi, polygons: list[np.ndarray], depth: int
) -> tuple[dict[int, list[tuple[float, list[np.ndarray]]]], list[str]]:
    """For each slice the planes that go to it, nearest first, as (distance, polygons); and the notes on them."""
    tilted = [p for p in polygons if np.ptp(p[:, 2]) > TILT]
    if tilted:
        most = max(float(np.ptp(p[:, 2])) for p in tilted)
        raise DicomError(
            f"Structure {roi.name!r}: {len(tilted)} of {len(polygons)} contours are not parallel to the slices "
            f"(they cross up to {most:.1f} slice distances). Draw it on the slices of this series, or give the series "
            "that it was drawn on."
        )
    heights = np.array([p[:, 2].mean() for p in polygons]).round(_STEP)
    inside = (heights >= -0.5) & (heights <= depth - 0.5)
    if not inside.any():
        raise DicomError(
            f"Structure {roi.name!r}: its contours lie at slices {heights.min():.1f} to {heights.max():.1f} of a "
            f"series that has 0 to {depth - 1}. Give the series that it was drawn on."
        )
    notes = []
    if lost := int(np.count_nonzero(~inside)):
        notes.append(
            f"Structure {roi.name!r}: {lost} of {len(polygons)} contours lie above or below the series: passed over."
        )
    off = np.abs(heights - np.clip(np.floor(heights + 0.5), 0, depth - 1))
    if count := int(np.count_nonzero(inside & (off > ON_PLANE))):
        notes.append(
            f"Structure {roi.name!r}: {count} of {len(polygons)} contours lie between slices (up to "
            f"{off[inside].max():.2f} slice distances off): read at the nearest slice."
        )
    planes: dict[int, list[tuple[float, list[np.ndarray]]]] = {}
    last = -np.inf
    group: list[np.ndarray] = []
    for number in np.argsort(heights, kind="stable"):
        if not inside[number]:
            continue
        k = min(int(np.floor(heights[number] + 0.5)), depth - 1)
        if heights[number] - last > ON_PLANE or k not in planes:
            group = []
            planes.setdefault(k, []).append((abs(float(heights[number]) - k), group))
        last = heights[number]
        group.append(polygons[number])
    for groups in planes.values():
        groups.sort(key=lambda each: each[0])
    return planes, notes


def _box(polygons: list[np.ndarray], planes: Iterable[int], grid: Grid) -> Box | None:
    points = np.concatenate(polygons)
    low = np.clip(np.ceil(points[:, :2].min(axis=0)), 0, grid.shape[:0:-1]).astype(int)
    high = np.clip(np.floor(points[:, :2].max(axis=0)) + 1, 0, grid.shape[:0:-1]).astype(int)
    if (low >= high).any():
        return None
    ks = list(planes)
    return slice(min(ks), max(ks) + 1), slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))


def _separate_components(plane: np.ndarray, nearer: np.ndarray) -> np.ndarray:
    """Connected components of ``plane`` that share no voxel with ``nearer``."""
    components, _ = ndimage.label(plane)
    return plane & ~np.isin(components, np.unique(components[nearer]))


def to_index(points_mm: np.ndarray, grid: Grid) -> np.ndarray:
    """Points (n, 3) in LPS as indices (column, row, slice) of a grid, which are whole at voxel centres.

    They are rounded to 1e-10 of a voxel, so that a point at a centre is there in every orientation.
    """
    to_index_axes = np.linalg.inv(np.array(grid.direction).reshape(3, 3)) / np.array(grid.spacing_mm[::-1])[:, None]
    x, y, z = (points_mm - np.array(grid.origin_mm)).T
    # term by term: a matrix product may round a point's last bit by how many others there are
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in to_index_axes], axis=1).round(_STEP) + 0.0


def _voxels_in_frame(roi: Roi, grid: Grid, frame_of_reference_uid: str) -> RoiVoxels:
    if frame_of_reference_uid and roi.frame_of_reference_uid not in ("", frame_of_reference_uid):
        raise DicomError(
            f"Structure {roi.name!r}: its frame of reference {roi.frame_of_reference_uid} is not the series' "
            f"{frame_of_reference_uid}. Give the series that it was drawn on."
        )
    return roi_voxels(roi, grid)


def _report_notes(lines: Iterable[str] | Iterator[str], on_note: NoteCallback | None) -> None:
    for line in lines:
        if on_note is not None:
            on_note(line)
