"""Where the contours of a structure lie: which of them enclose something, and the slices that they are read at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.dicom.structure_set import CLOSED_TYPES, XOR_TYPE, ImageOfSeries, Roi
from lnsegfm.imaging.grid import Grid

ON_PLANE = 0.05
"""Contours that lie this close, in slice distances, are on one plane; one this close to a slice is on it."""
TILT = 0.1
"""How far a contour may leave its plane, in slice distances: what rounded coordinates make of a planar one."""
_STEP = 10  # decimals of a voxel kept of coordinates: a point on a centre is there whatever the last bits say
_CONTRADICTION = 0.5  # slice distances between a contour and the image that it names


@dataclass(frozen=True)
class IndexedContour:
    """A closed contour on a grid.

    Args:
        points: (n, 3) as (column, row, slice), whole at voxel centres.
        exclusive_or: It is of type CLOSEDPLANAR_XOR.
        image: The image that it says it was drawn on; None where it names none.
    """

    points: np.ndarray = field(repr=False)
    exclusive_or: bool = False
    image: ImageOfSeries | None = None

    @property
    def height(self) -> float:
        """Where its plane lies, in slices."""
        return round(float(self.points[:, 2].mean()), _STEP)


@dataclass(frozen=True)
class ContourPlane:
    """The contours of one plane.

    Args:
        distance: From the slice that it is read at, in slice distances.
        contours: Those that lie on it.
    """

    distance: float
    contours: list[IndexedContour]

    @property
    def outlines(self) -> list[np.ndarray]:
        """Points of each contour as (column, row)."""
        return [contour.points[:, :2] for contour in self.contours]

    @property
    def exclusive_or(self) -> bool:
        """Any of its contours is of type CLOSEDPLANAR_XOR."""
        return any(contour.exclusive_or for contour in self.contours)


def closed_contours(roi: Roi, grid: Grid) -> tuple[list[IndexedContour], list[str]]:
    """The contours of a structure that may enclose something, and a line for each kind of those that are left out."""
    skipped: dict[str, int] = {}
    kept: dict[bytes, IndexedContour] = {}
    for contour in roi.contours:
        if contour.kind not in CLOSED_TYPES:
            reason = "points" if contour.kind == "POINT" else f"of type {contour.kind or 'unknown'}"
        elif len(contour.points_mm) < 3:
            reason = "of fewer than three points"
        else:
            index = to_index(contour.points_mm, grid)
            if index.tobytes() not in kept:
                kept[index.tobytes()] = IndexedContour(index, contour.kind == XOR_TYPE, contour.image)
                continue
            reason = "exact repetitions"
        skipped[reason] = skipped.get(reason, 0) + 1
    lines = [
        f"Structure {roi.name!r}: {n} of {len(roi.contours)} contours are {reason}: passed over."
        for reason, n in skipped.items()
    ]
    return list(kept.values()), lines


def planes_by_slice(
    name: str, contours: list[IndexedContour], depth: int
) -> tuple[dict[int, list[ContourPlane]], list[str]]:
    """For each slice the planes that are read at it, nearest first, and the notes on what was moved or passed over.

    Args:
        name: Of the structure.
        contours: Its closed contours.
        depth: Number of slices.

    Raises:
        DicomError: A contour is not parallel to the slices, or none reaches a slice.
    """
    _require_parallel(name, contours)
    heights = np.array([contour.height for contour in contours])
    inside = (heights >= -0.5) & (heights <= depth - 0.5)
    if not inside.any():
        raise DicomError(
            f"Structure {name!r}: its contours lie at slices {heights.min() + 1:.1f} to {heights.max() + 1:.1f} of a "
            f"series that has 1 to {depth}. Give the series that it was drawn on."
        )
    notes = []
    if lost := int(np.count_nonzero(~inside)):
        notes.append(
            f"Structure {name!r}: {lost} of {len(contours)} contours lie above or below the series: passed over."
        )
    off = np.abs(heights - np.clip(np.floor(heights + 0.5), 0, depth - 1))
    if count := int(np.count_nonzero(inside & (off > ON_PLANE))):
        notes.append(
            f"Structure {name!r}: {count} of {len(contours)} contours lie between slices (up to "
            f"{off[inside].max():.2f} slice distances off): read at the nearest slice."
        )
    planes: dict[int, list[ContourPlane]] = {}
    last = -np.inf
    for number in np.argsort(heights, kind="stable"):
        if not inside[number]:
            continue
        k = min(int(np.floor(heights[number] + 0.5)), depth - 1)
        if heights[number] - last > ON_PLANE or k not in planes:
            planes.setdefault(k, []).append(ContourPlane(abs(float(heights[number]) - k), []))
        last = heights[number]
        planes[k][-1].contours.append(contours[number])
    for groups in planes.values():
        groups.sort(key=lambda each: each.distance)
    return planes, notes


def _require_parallel(name: str, contours: list[IndexedContour]) -> None:
    tilts = [float(contour.points[:, 2].max() - contour.points[:, 2].min()) for contour in contours]
    if tilted := [tilt for tilt in tilts if tilt > TILT]:
        raise DicomError(
            f"Structure {name!r}: {len(tilted)} of {len(contours)} contours are not parallel to the slices "
            f"(they cross up to {max(tilted):.1f} slice distances). Draw it on the slices of this series, or give the "
            "series that it was drawn on."
        )


def image_notes(name: str, contours: list[IndexedContour], heights: Mapping[ImageOfSeries, float]) -> list[str]:
    """A line where contours name images of the series that lie more than half a slice from their coordinates.

    Args:
        name: Of the structure.
        contours: Its closed contours.
        heights: Where each image of the series lies, in slices.
    """
    named = [(c.height, heights[c.image]) for c in contours if c.image is not None and c.image in heights]
    off = [own - image for own, image in named if abs(own - image) > _CONTRADICTION]
    if not off:
        return []
    by = f"{min(off):+.1f}" if max(off) - min(off) <= _CONTRADICTION else f"{min(off):+.1f} to {max(off):+.1f}"
    return [
        f"Structure {name!r}: {len(off)} of {len(contours)} contours name images (ContourImageSequence) that lie "
        f"elsewhere than their coordinates, by {by} slices: placed by their coordinates."
    ]


@lru_cache(maxsize=16)
def _to_index_axes(grid: Grid) -> np.ndarray:
    axes: np.ndarray = np.linalg.inv(np.array(grid.direction).reshape(3, 3)) / np.array(grid.spacing_mm[::-1])[:, None]
    return axes


def to_index(points_mm: np.ndarray, grid: Grid) -> np.ndarray:
    """Points (n, 3) in LPS as indices (column, row, slice) of a grid, which are whole at voxel centres.

    They are rounded to 1e-10 of a voxel, so that a point at a centre is there in every orientation.
    """
    to_index_axes = _to_index_axes(grid)
    x, y, z = (points_mm - np.array(grid.origin_mm)).T
    # term by term: a matrix product may round a point's last bit by how many others there are
    return np.stack([row[0] * x + row[1] * y + row[2] * z for row in to_index_axes], axis=1).round(_STEP) + 0.0
