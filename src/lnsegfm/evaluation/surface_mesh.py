"""The surface of a mask as triangles, in millimetres.

Marching cubes (Lorensen and Cline, SIGGRAPH 1987) at the level 0.5 of the mask: every cell of 2 x 2 x 2 voxel centres
that holds voxels inside and outside gets triangles whose corners lie half-way between neighbours of which one is
inside. The volume is taken to be surrounded by voxels outside, so a mask that touches the border is closed there.

A cell depends on its eight voxels alone, hence 256 cases and one table. Two choices make the surface independent of
how the axes of the file run, which no table with triangles cut along one diagonal is: voxels that meet at an edge only
are joined (they are one node to the 26-neighbourhood), and a polygon of more than three corners is cut into triangles
around its centre.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from lnsegfm.imaging.box import bounding_box

_CORNERS = np.array([(c >> 2 & 1, c >> 1 & 1, c & 1) for c in range(8)])
"""Offsets (z, y, x) of a cell's corners; corner c is bit c of the cell's case."""

_PARTS = 1680
"""Parts that a voxel is counted in. Corners are means of three to eight edges' middles: whole numbers of them."""

Edge = frozenset[int]


@dataclass(frozen=True, eq=False)
class Surface:
    """Triangles of a mask's boundary.

    Args:
        vertices_mm: Every corner once (vertex, (z, y, x)), index times spacing: voxel [0, 0, 0] has its centre at zero.
            Patient space is this, turned and moved as a whole.
        triangles: The three vertices of each triangle (triangle, 3).
        scored: Whether each triangle may be scored: all eight voxels of its cell count.
    """

    vertices_mm: np.ndarray
    triangles: np.ndarray
    scored: np.ndarray

    @property
    def corners_mm(self) -> np.ndarray:
        """Corners of each triangle (triangle, corner, (z, y, x))."""
        return self.vertices_mm[self.triangles]

    @property
    def centres_mm(self) -> np.ndarray:
        """Centroid of each triangle (triangle, (z, y, x))."""
        first, second, third = (self.vertices_mm[corner] for corner in self.triangles.T)
        return (first + second + third) / 3

    @property
    def areas_mm2(self) -> np.ndarray:
        """Area of each triangle."""
        first, second, third = (self.vertices_mm[corner] for corner in self.triangles.T)
        return np.linalg.norm(np.cross(second - first, third - first), axis=1) / 2


def surface_of(mask: np.ndarray, spacing_mm: tuple[float, float, float], valid: np.ndarray | None = None) -> Surface:
    """Mesh the boundary of a mask.

    Memory is that of two planes and of the triangles, about 1 kB for each mm² of surface at voxels of 1 mm.

    Args:
        mask: Boolean volume (z, y, x).
        spacing_mm: Distance of voxel centres along (z, y, x).
        valid: Boolean volume of the voxels that count; None counts all of them. What surrounds the volume counts.

    Returns:
        Its triangles; none where the mask is empty.
    """
    box = bounding_box(mask)
    if box is None:
        return Surface(np.empty((0, 3)), np.empty((0, 3), dtype=np.intp), np.empty(0, dtype=bool))
    cells, cases = _cells(mask[box])
    table, first, number = _table()
    each = number[cases]
    of_cell = np.repeat(np.arange(len(cells)), each)
    of_table = np.arange(len(of_cell)) + np.repeat(first[cases] - (np.cumsum(each) - each), each)
    start = np.array([part.start for part in box])
    vertices, triangles = _merged(table[of_table] + _PARTS * (cells[of_cell, None] + 1))
    vertices_mm = (vertices / _PARTS - 1 + start) * spacing_mm
    return Surface(vertices_mm, triangles, _all_count(cells + start, valid)[of_cell])


def _merged(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of triangles (n, 3, 3), non-negative integers, as the different ones among them and their numbers."""
    high = corners.reshape(-1, 3).max(axis=0) + 1
    keys = (corners[..., 0] * high[1] + corners[..., 1]) * high[2] + corners[..., 2]
    different, number = np.unique(keys, return_inverse=True)
    rest, x = np.divmod(different, high[2])
    return np.stack([*np.divmod(rest, high[1]), x], axis=1), number.reshape(-1, 3)


def _cells(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The cells that the surface crosses: index of their lowest voxel (z, y, x; from -1), and their case."""
    depth, height, width = mask.shape
    nothing = np.zeros((height + 1, width + 1), dtype=np.uint8)
    below = nothing
    cells, cases = [], []
    for z in range(depth + 1):
        above = _plane_case(mask[z]) if z < depth and mask[z].any() else nothing
        if below is not nothing or above is not nothing:
            case = below | above << 4
            crossed = np.flatnonzero((case != 0) & (case != 255))
            y, x = np.divmod(crossed, width + 1)
            cells.append(np.stack([np.full(len(y), z - 1), y - 1, x - 1], axis=1))
            cases.append(case.ravel()[crossed])
        below = above
    return np.concatenate(cells), np.concatenate(cases)


def _plane_case(plane: np.ndarray) -> np.ndarray:
    """The four bits that a plane of voxels gives to the cells of the layer above it, with a rim of zeros around."""
    bits = np.pad(plane, 1).view(np.uint8)
    return bits[:-1, :-1] | bits[:-1, 1:] << 1 | bits[1:, :-1] << 2 | bits[1:, 1:] << 3


def _all_count(cells: np.ndarray, valid: np.ndarray | None) -> np.ndarray:
    if valid is None:
        return np.ones(len(cells), dtype=bool)
    counts = np.ones(len(cells), dtype=bool)
    for corner in _CORNERS:
        voxel = cells + corner
        inside = ((voxel >= 0) & (voxel < valid.shape)).all(axis=1)
        counts[inside] &= valid[tuple(voxel[inside].T)]
    return counts


@cache
def _table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles of all 256 cases one after another (n, 3, 3), in parts; the first of each case, and how many."""
    cases = [[t for polygon in _polygons(case) for t in _triangles(polygon)] for case in range(256)]
    number = np.array([len(triangles) for triangles in cases])
    triangles = np.array([t for triangles in cases for t in triangles]) * _PARTS
    return np.rint(triangles).astype(np.int64), np.cumsum(number) - number, number


def _triangles(polygon: list[Edge]) -> list[np.ndarray]:
    corners = np.array([_CORNERS[list(edge)].mean(axis=0) for edge in polygon])
    if len(corners) == 3:
        return [corners]
    centre, after = corners.mean(axis=0), np.roll(corners, -1, axis=0)
    return [np.array([centre, one, next_]) for one, next_ in zip(corners, after, strict=True)]


def _polygons(case: int) -> list[list[Edge]]:
    """The closed lines in which the surface crosses the faces of a cell, each as the cell's edges that it crosses."""
    neighbours: dict[Edge, list[Edge]] = {}
    for face in _faces():
        inside = [bool(case >> corner & 1) for corner in face]
        edges = [frozenset((face[i], face[(i + 1) % 4])) for i in range(4)]
        crossed = [edges[i] for i in range(4) if inside[i] != inside[(i + 1) % 4]]
        if len(crossed) == 4:  # the two corners inside, across from each other, are joined: cut off those outside
            links = [(edges[i - 1], edges[i]) for i in range(4) if not inside[i]]
        else:
            links = [(crossed[0], crossed[1])] if crossed else []
        for one, other in links:
            neighbours.setdefault(one, []).append(other)
            neighbours.setdefault(other, []).append(one)
    polygons = []
    while neighbours:
        polygon = [next(iter(neighbours))]
        while onward := [edge for edge in neighbours.pop(polygon[-1]) if edge in neighbours]:
            polygon.append(onward[0])
        polygons.append(polygon)
    return polygons


def _faces() -> list[tuple[int, int, int, int]]:
    """The corners of each of a cell's six faces, in their order around it."""
    weights = (4, 2, 1)
    faces = []
    for axis in range(3):
        one, other = (weights[i] for i in range(3) if i != axis)
        for start in (0, weights[axis]):
            faces.append((start, start + one, start + one + other, start + other))
    return faces
