"""Planes of one geometry: equal sizes, and orientations and pixel spacings that agree to within half a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from lnsegfm.imaging.dicom.headers import ImagePlane
from lnsegfm.imaging.dicom.slice_steps import ROUNDED_MM, unevenness

SAME_GEOMETRY_PIXELS = 0.5
"""Corners of two planes of one geometry may lie this far apart, in pixels, where their first pixels coincide."""
TOLD_PIXELS = 0.05
"""From this on a difference is more than rounding, and told."""
MOST_DIFFERENT = 0.01
"""And never more than this in a direction cosine or, as a share, in a pixel spacing, however small the image is."""
MAX_GEOMETRIES = 64
"""Sizes, spacings and orientations of a series: a volume and its localisers have a few."""


@dataclass(frozen=True, eq=False)
class PlaneGroup:
    """Planes of one geometry, in an order that does not depend on the order or the names of the files.

    Args:
        planes: Ascending along the normal.
        axes: (3, 3) with columns: unit vectors along a row, along a column, and the normal; the planes' median.
        spacing_mm: Distance between rows, and between columns; the planes' median.
        heights_mm: (n,) position of each plane along the normal.
        spread_pixels: How far the corner of a plane lies from where the median has it, at the most.
    """

    planes: tuple[ImagePlane, ...]
    axes: np.ndarray
    spacing_mm: tuple[float, float]
    heights_mm: np.ndarray
    spread_pixels: float = 0.0

    @property
    def name(self) -> str:
        """What messages call its series."""
        return self.planes[0].name

    @property
    def positions_mm(self) -> np.ndarray:
        """(n, 3) ImagePositionPatient, LPS."""
        return np.array([plane.position_mm for plane in self.planes], dtype=float)

    @property
    def rounded_mm(self) -> float:
        """What rounding positions to a tenth of a millimetre along each axis makes of a step along the normal."""
        return ROUNDED_MM * float(np.abs(self.axes[:, 2]).sum())

    def unevenness(self) -> str | None:
        """Why its planes, one a position, are not evenly spaced (`slice_steps.unevenness`); None where they are."""
        return unevenness(self.heights_mm, self.rounded_mm)

    @property
    def notes(self) -> tuple[str, ...]:
        """A line where its planes differ by more than rounding."""
        if self.spread_pixels <= TOLD_PIXELS:
            return ()
        by = f"by up to {self.spread_pixels:.2g} pixels over the field of view"
        return (f"orientation or pixel spacing differs between its slices, {by}: read with their median",)

    def part(self, indices: Sequence[int] | np.ndarray) -> PlaneGroup:
        """Some of its planes, with the geometry of all."""
        kept = sorted(int(k) for k in indices)
        return replace(self, planes=tuple(self.planes[k] for k in kept), heights_mm=self.heights_mm[kept])


def spacing_mm(plane: ImagePlane) -> tuple[float, float]:
    """Distance between rows, and between columns; NaN where the header has none."""
    down, across = plane.pixel_spacing_mm or (math.nan, math.nan)
    return down, across


def plane_axes(plane: ImagePlane) -> Any:
    """Columns: unit vectors along a row, along a column, and the normal; None where the header gives no right angle."""
    return orthonormal_axes(plane.orientation) if plane.orientation is not None else None


@lru_cache(maxsize=64)  # the slices of a stack have one orientation
def orthonormal_axes(orientation: tuple[float, ...]) -> np.ndarray | None:
    """Columns: unit vectors along a row, along a column, and the normal, of six cosines that are nearly so."""
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(float(row @ column))) > 1e-3:
        return None
    return _right_angles(row, column)


def _right_angles(row: np.ndarray, column: np.ndarray) -> np.ndarray:
    row = row / np.linalg.norm(row)
    column = column - row * (row @ column)
    column = column / np.linalg.norm(column)
    return np.stack([row, column, np.cross(row, column)], axis=1)


def group_planes(planes: Sequence[ImagePlane]) -> list[PlaneGroup] | None:
    """Sort planes by geometry; the largest group first. None where there are more than ``MAX_GEOMETRIES``.

    Frames of reference do not count. The result does not depend on the order of the planes.

    Args:
        planes: With orientation (rows and columns at right angles), position and pixel spacing.
    """
    by_size: dict[tuple[int, int], list[ImagePlane]] = {}
    for plane in planes:
        by_size.setdefault((plane.rows, plane.columns), []).append(plane)
    groups: list[PlaneGroup] = []
    for size in sorted(by_size):
        of_size = by_size[size]
        values = np.array([(*plane_axes(p)[:, :2].T.ravel(), *spacing_mm(p)) for p in of_size])
        unique, member, counts = np.unique(values, axis=0, return_inverse=True, return_counts=True)
        clusters = _clusters(unique, counts, size, MAX_GEOMETRIES - len(groups))
        if clusters is None:
            return None
        cluster_of = clusters[member.ravel()]
        for number in range(int(clusters.max()) + 1):
            of_cluster = np.flatnonzero(cluster_of == number)
            groups.append(_group([of_size[k] for k in of_cluster], values[of_cluster]))
    return sorted(groups, key=lambda group: (-len(group.planes), group.planes[0].order))


def _clusters(unique: np.ndarray, counts: np.ndarray, size: tuple[int, int], most: int) -> np.ndarray | None:
    """The cluster of each geometry: the most common one and what is like it, then of the rest, and so on."""
    cluster = np.full(len(unique), -1)
    number = 0
    while (free := np.flatnonzero(cluster < 0)).size:
        if number == most:  # a hostile file may have a geometry for each of a million planes
            return None
        leader = free[np.argmax(counts[free])]
        near = free[_alike(unique[free], unique[leader], size, 2.0)]
        for _ in range(2):
            middle = np.median(np.repeat(unique[near], counts[near], axis=0), axis=0)
            near = free[_alike(unique[free], middle, size, 1.0)]
            if not near.size:
                near = free[free == leader]
        cluster[near] = number
        number += 1
    return cluster


def _alike(values: np.ndarray, middle: np.ndarray, size: tuple[int, int], times: float) -> np.ndarray:
    """Which geometries are that of ``middle``, to so many times the tolerance."""
    differ = np.abs(values - middle)
    differ[:, 6:] /= middle[6:]
    return np.asarray(
        (_apart_pixels(values, middle, size) <= times * SAME_GEOMETRY_PIXELS)
        & (differ.max(axis=1) <= times * MOST_DIFFERENT)
    )


def _apart_pixels(values: np.ndarray, middle: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How far the corners of planes lie from those of ``middle``, in its pixels, at the most."""
    across, down = (_side(values, size, along) - _side(middle[None], size, along) for along in ("row", "column"))
    corners = [np.linalg.norm(v, axis=1) for v in (across, down, across + down)]
    return np.asarray(np.max(corners, axis=0) / float(middle[6:].min()))


def _side(values: np.ndarray, size: tuple[int, int], along: str) -> np.ndarray:
    rows, columns = size
    if along == "row":
        return np.asarray(values[:, :3] * (values[:, 7] * (columns - 1))[:, None])
    return np.asarray(values[:, 3:6] * (values[:, 6] * (rows - 1))[:, None])


def _group(planes: list[ImagePlane], values: np.ndarray) -> PlaneGroup:
    middle = np.median(values, axis=0)
    axes = _right_angles(middle[:3], middle[3:6])
    spread = float(_apart_pixels(values, middle, (planes[0].rows, planes[0].columns)).max())
    heights = np.array([p.position_mm for p in planes], dtype=float) @ axes[:, 2]
    order = sorted(range(len(planes)), key=lambda k: (heights[k], planes[k].order))
    down, across = (float(v) for v in middle[6:])
    return PlaneGroup(tuple(planes[k] for k in order), axes, (down, across), heights[order], spread)
