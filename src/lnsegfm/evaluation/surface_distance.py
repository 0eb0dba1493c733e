"""The distance of points to the nearest point of a surface of triangles: exact, without trying every triangle."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from lnsegfm.evaluation.surface_mesh import Surface

_PAIRS = 1 << 17
"""Pairs of a point and a vertex that are compared at once: about 100 MB of temporary arrays."""
_FIRST = 8
"""Vertices tried for each point at first."""
_ROUNDING_MM = 1e-9
"""What is nearer than this lies on the surface: a triangle's own centroid comes out at 1e-16 mm or so from it."""


def distances_mm(points_mm: np.ndarray, surface: Surface) -> np.ndarray:
    """Distance of each point to the nearest point of a surface's triangles, in mm, to rounding (1e-9 mm and less is 0).

    Triangles are tried around the vertices nearest to the point, and this many are enough: let ``x`` be the nearest
    point of the surface, at the distance ``d``, with barycentric coordinates ``l`` in its triangle of corners ``v``.
    Then ``sum l |p - v|² = d² + sum l |x - v|²``, and the last sum is at most the squared radius ``r²`` of the
    smallest circle around the triangle. So one of its corners has ``|p - v|² <= d² + r²``: once every vertex within
    that, for the best distance so far and the largest circle, was tried, nothing nearer is left.

    Args:
        points_mm: Points (n, 3).
        surface: At least one triangle.
    """
    triangles = _Triangles(surface)
    best, open_ = np.full(len(points_mm), np.inf), np.arange(len(points_mm))
    tried_mm, number = np.zeros(len(points_mm)), min(_FIRST, triangles.tree.n)
    while len(open_):
        left, step = [], max(1, _PAIRS // number)
        for chosen in (open_[start : start + step] for start in range(0, len(open_), step)):
            to_vertex, vertex = triangles.tree.query(points_mm[chosen], k=np.arange(1, number + 1), workers=-1)
            near = triangles.nearest(points_mm[chosen], best[chosen], to_vertex[:, :1], vertex[:, :1])
            # vertices equally far come in any order, so "those after the last tried" goes by distance, not by rank
            to_vertex[:, 1:][to_vertex[:, 1:] < tried_mm[chosen, None] * (1 - 1e-12)] = np.inf
            near = triangles.nearest(points_mm[chosen], near, to_vertex[:, 1:], vertex[:, 1:])
            best[chosen], tried_mm[chosen] = near, to_vertex[:, -1]
            left.append(chosen[(near > _ROUNDING_MM) & (to_vertex[:, -1] ** 2 <= near**2 + triangles.circle2)])
        open_ = np.concatenate(left)
        if number == triangles.tree.n:
            break
        number = min(4 * number, triangles.tree.n)
    best[best <= _ROUNDING_MM] = 0.0
    return best


class _Triangles:
    """Triangles, prepared for many questions."""

    def __init__(self, surface: Surface) -> None:
        corners = surface.corners_mm
        self.first = corners[:, 0]
        self.sides = corners[:, 1:] - corners[:, :1]
        normals = np.cross(self.sides[:, 0], self.sides[:, 1])
        self.normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
        self.offsets = _dot(self.normals, self.first)
        self.circle2 = _largest_circle2(corners)
        self.tree = cKDTree(surface.vertices_mm)
        # the triangles around vertex v are around[start[v] : start[v + 1]]
        self.around = np.argsort(surface.triangles, axis=None, kind="stable") // 3
        self.start = np.concatenate([[0], np.cumsum(np.bincount(surface.triangles.ravel()))])

    def nearest(self, points: np.ndarray, best: np.ndarray, to_vertex: np.ndarray, vertex: np.ndarray) -> np.ndarray:
        """The best distances after the triangles around some more vertices (point, vertex) were tried."""
        point, column = np.nonzero(to_vertex**2 <= best[:, None] ** 2 + self.circle2)
        vertices = vertex[point, column]
        each = self.start[vertices + 1] - self.start[vertices]
        within = np.arange(each.sum()) - np.repeat(np.cumsum(each) - each, each)
        triangle = self.around[np.repeat(self.start[vertices], each) + within]
        point = np.repeat(point, each)
        # no triangle is nearer than its plane, and most around a flat place share one
        to_plane = np.abs(_dot(self.normals[triangle], points[point]) - self.offsets[triangle])
        worth = to_plane < best[point] * (1 - 1e-12)
        point, triangle = point[worth], triangle[worth]
        squared = _squared_distance(points[point] - self.first[triangle], self.sides[triangle])
        np.minimum.at(best, point, np.sqrt(squared))
        return best


def _largest_circle2(corners: np.ndarray) -> float:
    """Largest squared radius of the smallest circles around triangles (n, 3, 3).

    It goes through the corners where no angle is above 90 degrees; else its diameter is the longest side.
    """
    a2, b2, c2 = np.sort(np.sum((corners - np.roll(corners, 1, axis=1)) ** 2, axis=2), axis=1).T
    area16 = 4 * a2 * b2 - (a2 + b2 - c2) ** 2  # Heron: sixteen times the squared area
    return float(np.where(c2 >= a2 + b2, c2 / 4, a2 * b2 * c2 / area16).max())


def _squared_distance(point: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Squared distance of points (n, 3) to triangles with one corner at zero and the others at ``sides`` (n, 2, 3).

    The nearest point is the foot of the perpendicular where that lies within the triangle, and on a side elsewhere.
    """
    one, other = sides[:, 0], sides[:, 1]
    one2, other2, both = _dot(one, one), _dot(other, other), _dot(one, other)
    along_one, along_other = _dot(one, point), _dot(other, point)
    determinant = one2 * other2 - both**2
    s = (other2 * along_one - both * along_other) / determinant
    t = (one2 * along_other - both * along_one) / determinant
    foot = point - s[:, None] * one - t[:, None] * other
    squared = _dot(foot, foot)
    out = np.flatnonzero((s < 0) | (t < 0) | (s + t > 1))
    point, one, other = point[out], one[out], other[out]
    squared[out] = np.minimum(
        np.minimum(_to_side(point, one), _to_side(point, other)), _to_side(point - one, other - one)
    )
    return squared


def _to_side(point: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Squared distance of points to the sides that run from zero to ``side``."""
    along = np.clip(_dot(point, side) / _dot(side, side), 0.0, 1.0)
    rest = point - along[:, None] * side
    return _dot(rest, rest)


def _dot(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", one, other)
