"""Contours of fewer points: outlines along voxel edges, simplified within a distance.

A chain of points becomes one chord where none of its points is farther from the chord (Douglas and Peucker 1973,
doi:10.3138/FM57-6770-U75U-7727). Two starts are tried: the corners of the outline, and the middles of the voxel sides
next to them, which leave every voxel centre on its side and turn stairs into straight lines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_MOST_EDGES = 3000
"""Of a plane whose contours are compared with each other for crossings; planes of more stay exact."""


def thinned(
    outlines: Sequence[np.ndarray], mm: float, spacing_mm: tuple[float, float], *, middles: bool
) -> list[np.ndarray]:
    """The outlines of a plane with fewer points, each within a distance of what it was; as they are where they cross.

    Args:
        outlines: Points (n, 2) as (column, row), at halves, from ``trace_outlines``.
        mm: How far a point may lie from the other outline, either way.
        spacing_mm: Of rows and of columns: voxel height and width.
        middles: Start from the middles of voxel sides instead of the corners.

    Returns:
        As many outlines, in their order.
    """
    scale = np.array(spacing_mm[::-1])
    left_mm = mm
    if middles:
        left_mm -= scale[0] * scale[1] / (2 * math.hypot(*scale))  # of a corner, from the line that cuts it off
        if left_mm < 0:
            return list(outlines)
    made = [_thin(_middles(p) if middles else p, left_mm, scale) for p in outlines]
    made = [new if len(new) >= 3 else old for new, old in zip(made, outlines, strict=True)]
    return list(outlines) if _cross(made) else made


def farthest_mm(points: np.ndarray, polygons: Sequence[np.ndarray], spacing_mm: tuple[float, float]) -> float:
    """How far, at most, a point lies from the nearest side of any polygon.

    Args:
        points: (n, 2) as (column, row).
        polygons: Points (n, 2) each, closed.
        spacing_mm: Of rows and of columns.
    """
    scale = np.array(spacing_mm[::-1])
    starts = np.concatenate(list(polygons)) * scale
    ends = np.concatenate([np.roll(p, -1, axis=0) for p in polygons]) * scale
    worst = 0.0
    for part in np.array_split(points * scale, max(1, len(points) * len(starts) // (1 << 22))):
        worst = max(worst, float(_distances(part[:, None], starts[None], ends[None]).min(axis=1).max(initial=0.0)))
    return worst


def _distances(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """From points to segments."""
    along = ends - starts
    length = np.maximum((along**2).sum(axis=-1), 1e-30)
    share = np.clip(((points - starts) * along).sum(axis=-1) / length, 0, 1)
    off: np.ndarray = np.sqrt(((points - starts - share[..., None] * along) ** 2).sum(axis=-1))
    return off


def _middles(polygon: np.ndarray) -> np.ndarray:
    """For each side the middles of its first and last voxel side, which are one where it is a voxel long."""
    ends = np.roll(polygon, -1, axis=0)
    step = np.sign(ends - polygon) * 0.5
    both = np.stack([polygon + step, ends - step], axis=1).reshape(-1, 2)
    return both[(both != np.roll(both, 1, axis=0)).any(axis=1)]


def _thin(polygon: np.ndarray, mm: float, scale: np.ndarray) -> np.ndarray:
    """Douglas and Peucker on a ring, cut at its first point and at the one farthest from it."""
    points = polygon * scale
    first = int(np.lexsort((points[:, 1], points[:, 0]))[0])
    points, polygon = np.roll(points, -first, axis=0), np.roll(polygon, -first, axis=0)
    far = int(((points - points[0]) ** 2).sum(axis=1).argmax())
    closed = np.concatenate([points, points[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far]] = True
    chains = [(0, far), (far, len(points))]
    while chains:
        low, high = chains.pop()
        if high - low < 2:
            continue
        off = _distances(closed[low + 1 : high], closed[low], closed[high])
        worst = int(off.argmax())
        if off[worst] > mm + 1e-9:
            cut = low + 1 + worst
            keep[cut] = True
            chains += [(low, cut), (cut, high)]
    return polygon[keep[:-1]]


def _cross(polygons: Sequence[np.ndarray]) -> bool:
    """Whether a side of the polygons crosses another, or there are too many to tell."""
    starts = np.concatenate(list(polygons))
    ends = np.concatenate([np.roll(p, -1, axis=0) for p in polygons])
    if len(starts) > _MOST_EDGES:
        return True

    low, high = np.minimum(starts, ends), np.maximum(starts, ends)
    near = (low[:, None, 1] < high[None, :, 1]) & (low[None, :, 1] < high[:, None, 1])
    near &= (low[:, None, 0] < high[None, :, 0]) & (low[None, :, 0] < high[:, None, 0])
    one, other = np.nonzero(np.triu(near, 1))
    return bool((_parted(starts, ends, one, other) & _parted(starts, ends, other, one)).any())


def _parted(starts: np.ndarray, ends: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether each side of ``other`` has its ends on both sides of the line through the side of ``one``."""
    (a, b), (c, d) = (ends[one] - starts[one]).T, (starts[other] - starts[one]).T
    e, f = (ends[other] - starts[one]).T
    parted: np.ndarray = (a * d - b * c).round(9) * (a * f - b * e).round(9) < 0
    return parted
