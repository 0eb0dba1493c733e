"""Holes of a plane's contours: which outline is a hole in which, and keyholes that reach a hole through a slit.

A keyhole runs along the outer outline to a slit, through it to the hole, around the hole the other way, and back
through the slit (PS3.3 C.8.8.6.3). The slit is walked twice, so an odd number of crossings and a winding number both
leave out the hole and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def hole_owners(outlines: Sequence[np.ndarray]) -> list[int | None]:
    """For each outline of ``trace_outlines`` the outline that it is a hole in; None for outer ones.

    Args:
        outlines: Points (n, 2) as (column, row), at halves, all of one plane.
    """
    boxes = np.array([(*p.min(axis=0), *p.max(axis=0)) for p in outlines]).reshape(-1, 4)
    areas = [abs(signed_area(p)) for p in outlines]
    owners: list[int | None] = []
    for number, polygon in enumerate(outlines):
        # the first corner from the top, then from the left: the voxel below and right of it lies inside
        column, row = polygon[np.lexsort((polygon[:, 0], polygon[:, 1]))[0]] + 0.5
        near = (boxes[:, 0] < column) & (boxes[:, 1] < row) & (boxes[:, 2] > column) & (boxes[:, 3] > row)
        around = [
            other
            for other in np.flatnonzero(near).tolist()
            if other != number and _inside(outlines[other], column, row)
        ]
        owners.append(min(around, key=areas.__getitem__) if len(around) % 2 else None)
    return owners


def signed_area(polygon: np.ndarray) -> float:
    """The area of a polygon, negative where it is walked the other way."""
    x, y = (polygon - polygon[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2


def walked(polygon: np.ndarray, *, hole: bool) -> np.ndarray:
    """The polygon, walked so that outer outlines have a positive area and holes a negative one."""
    return polygon[::-1] if (signed_area(polygon) < 0) != hole else polygon


def keyholed(outer: np.ndarray, holes: Sequence[np.ndarray]) -> np.ndarray:
    """One polygon of an outline and its holes.

    Args:
        outer: Points (n, 2), walked as an outer outline.
        holes: Points of each hole, walked as a hole; they lie within ``outer`` and may touch it or each other.
    """
    ring = outer
    for hole in sorted(holes, key=lambda polygon: (float(polygon[:, 0].min()), polygon.tolist())):
        ring = _with_slit(ring, hole)
    return ring


def _with_slit(ring: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A ring and a hole, joined by a slit that runs from the hole's leftmost point to the left, to the ring."""
    start = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
    column, row = hole[start]
    begin, end = ring, np.roll(ring, -1, axis=0)
    spans = (np.minimum(begin[:, 1], end[:, 1]) <= row) & (np.maximum(begin[:, 1], end[:, 1]) >= row)
    slanted = begin[:, 1] != end[:, 1]
    share = np.divide(row - begin[:, 1], end[:, 1] - begin[:, 1], out=np.zeros(len(ring)), where=slanted)
    at = begin[:, 0] + share * (end[:, 0] - begin[:, 0])
    at = np.where(slanted & spans & (at <= column), at, -np.inf)
    edge = int(at.argmax())
    vertex: int | None = None
    if not np.isfinite(at[edge]):  # nothing to the left, as thinned outlines may leave it: any slit is walked twice
        vertex = int(np.abs(ring - hole[start]).sum(axis=1).argmin())
    elif at[edge] == begin[edge, 0] and row == begin[edge, 1]:
        vertex = edge
    elif at[edge] == end[edge, 0] and row == end[edge, 1]:
        vertex = (edge + 1) % len(ring)
    if vertex is None:
        before, landing, after = ring[: edge + 1], np.array([[at[edge], row]]), ring[edge + 1 :]
    else:
        before, landing, after = ring[:vertex], ring[vertex : vertex + 1], ring[vertex + 1 :]
    around = np.concatenate([hole[start:], hole[: start + 1]])
    if np.array_equal(landing[0], hole[start]):  # they touch: no slit
        return np.concatenate([before, around, after])
    return np.concatenate([before, landing, around, landing, after])


def _inside(polygon: np.ndarray, column: float, row: float) -> bool:
    (x0, y0), y1 = polygon.T, np.roll(polygon[:, 1], -1)
    crosses = (y0 > row) != (y1 > row)  # outlines run along rows and columns: those that cross are upright
    return bool(np.count_nonzero(crosses & (x0 > column)) & 1)
