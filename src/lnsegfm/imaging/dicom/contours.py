"""Polygons and voxels of one plane, each converted to the other without loss.

Coordinates are (column, row) in voxels: voxel [r, c] is the unit square around its centre (c, r), so its edges lie at
c - 0.5 and c + 0.5. A voxel belongs to a set of polygons if its centre lies inside an odd number of them: holes, and
keyholes that reach a hole through a slit, need no treatment of their own.

Edges are half open. A centre that lies exactly on the polygon's left or lower-index side is inside, one on the right or
higher-index side is outside, so polygons that share a side never share a voxel and never leave one out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

_EMPTY = np.empty((0, 2))
_CUTS = 1 << 21


def fill_polygons(
    polygons: Sequence[np.ndarray], shape: tuple[int, int], corner: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """The voxels whose centres lie inside an odd number of polygons.

    Args:
        polygons: Points (n, 2) as (column, row), each closed from its last point to its first. Self-crossing ones are
            filled by the same rule.
        shape: Rows and columns of the window that is filled; polygons may reach out of it.
        corner: Row and column of the window's first voxel.

    Returns:
        Booleans of ``shape``.
    """
    rows, columns = shape
    starts = np.concatenate([_EMPTY, *polygons]) - (corner[1], corner[0])
    ends = np.concatenate([_EMPTY, *(np.roll(p, -1, axis=0) for p in polygons)]) - (corner[1], corner[0])
    # an edge is cut from its lower end, whichever way it is walked: neighbours then agree to the last bit
    down = (starts[:, 1] < ends[:, 1])[:, None]
    (x0, y0), (x1, y1) = np.where(down, starts, ends).T, np.where(down, ends, starts).T
    first, stop = np.clip(np.ceil(y0), 0, rows).astype(np.int64), np.clip(np.ceil(y1), 0, rows).astype(np.int64)
    ends_at = np.cumsum(stop - first)
    crossings = np.zeros((rows, columns + 1), dtype=np.int64)
    # so many cuts at a time: each takes a hundred bytes, and a hostile contour goes up and down a million times
    limits = np.searchsorted(ends_at, np.arange(0, int(ends_at[-1:].sum()) + _CUTS, _CUTS)[1:], side="right")
    for low, high in pairwise([0, *np.unique(limits).tolist(), len(ends_at)]):
        part = slice(low, high)
        crossings += _crossings(x0[part], y0[part], x1[part], y1[part], first[part], stop[part], (rows, columns))
    return (np.cumsum(crossings[:, :-1], axis=1) & 1).astype(bool)


def _crossings(
    x0: np.ndarray,
    y0: np.ndarray,
    x1: np.ndarray,
    y1: np.ndarray,
    first: np.ndarray,
    stop: np.ndarray,
    shape: tuple[int, int],
) -> np.ndarray:
    """How many edges cross each row before each column, (rows, columns + 1)."""
    rows, columns = shape
    cuts = stop - first
    edge = np.repeat(np.arange(len(cuts)), cuts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(cuts) - cuts, cuts) + first[edge]
    with np.errstate(over="ignore"):
        at = x0[edge] + (row - y0[edge]) / (y1[edge] - y0[edge]) * (x1[edge] - x0[edge])
    column = np.clip(np.ceil(at), 0, columns).astype(np.int64)
    return np.bincount(row * (columns + 1) + column, minlength=rows * (columns + 1)).reshape(rows, columns + 1)


def trace_outlines(plane: np.ndarray) -> list[np.ndarray]:
    """The polygons along voxel edges that bound the true voxels of a plane: ``filled`` of them is the plane again.

    Every border is a polygon of its own, those of holes too, and none touches itself: where voxels meet at a corner
    only, polygons meet there. Points lie at corners alone, none within a straight side.

    Args:
        plane: Booleans (rows, columns).

    Returns:
        Points (n, 2) as (column, row), at halves; n is at least 4.
    """
    corners, beside, below = _corners(plane)
    polygons = []
    waiting = np.ones(len(corners), dtype=bool)
    for start in range(len(corners)):
        if not waiting[start]:
            continue
        path, corner = [start], int(beside[start])
        along_row = False
        while corner != start:
            path.append(corner)
            corner = int(below[corner] if not along_row else beside[corner])
            along_row = not along_row
        waiting[path] = False
        polygons += _split_at_touching_points(corners[path])
    return polygons


def _corners(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners (n, 2) of all borders, and for each the corner at the other end of its side along row and column.

    A corner at which two voxels meet diagonally is there twice. Along a row of corners, sides lie between the first and
    second, the third and fourth, ... and likewise along a column.
    """
    padded = np.pad(plane, 1)
    a, b, c, d = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    diagonal = (a == d) & (b == c) & (a != b)
    row, column = np.nonzero((a ^ b ^ c ^ d) | diagonal)
    double = diagonal[row, column]
    row, column = np.repeat(row, double + 1), np.repeat(column, double + 1)
    number = np.arange(len(row))
    # of two at one place the first ends the sides before it, along row and column, and the second starts those after it
    by_column = np.lexsort((number, row, column))
    below = np.empty(len(row), dtype=np.int64)
    below[by_column] = by_column[number ^ 1]
    return np.stack((column, row), axis=1) - 0.5, number ^ 1, below


def _split_at_touching_points(polygon: np.ndarray) -> list[np.ndarray]:
    """Cut a polygon in two wherever it comes back to a point of its own."""
    points = [tuple(p) for p in polygon.tolist()]
    if len(set(points)) == len(points):
        return [polygon]
    pieces: list[list[tuple[float, ...]]] = []
    path: list[tuple[float, ...]] = []
    place: dict[tuple[float, ...], int] = {}
    for point in points:
        if point in place:
            back = place[point]
            pieces.append(path[back:])
            for cut in path[back:]:
                del place[cut]
            del path[back:]
        place[point] = len(path)
        path.append(point)
    return [np.array(piece) for piece in [*pieces, path]]
