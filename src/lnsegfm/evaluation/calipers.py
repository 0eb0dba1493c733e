"""Diameters of a piece of a mask, as calipers on its outline take them.

The outline lies half a voxel beyond the centres of the outermost voxels, along the axes of the grid: a row of voxels
ends, on average over where the border can lie, half way between the last centre inside and the next one outside. So
lengths have no bias there; from centre to centre they would be one voxel too short, and from corner to corner too long
on every slanted border.

Only the convex hull counts: its corners hold the ends of every longest distance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

Points = NDArray[np.float64]
TIE_MM = 1e-6  # lengths this close are the same: rounding, or the same length twice
_FEW = 48  # points of which no hull has to be taken first
_CHUNK = 512


def outline(piece: NDArray[np.bool_]) -> Points:
    """Corners of the convex hull of a piece's outline, in half voxels.

    Args:
        piece: Boolean array of one, two or three axes that is not empty.

    Returns:
        (n, axes) even and odd whole numbers: twice the index, so that voxel 0 reaches from -1 to 1 along each axis.
    """
    filled = np.nonzero(piece.any(axis=-1))
    lines = piece[filled]
    first = np.argmax(lines, axis=-1)
    last = piece.shape[-1] - 1 - np.argmax(lines[:, ::-1], axis=-1)
    ends = np.concatenate([np.stack([*filled, end], axis=-1) for end in (first, last)]).astype(np.float64)
    steps = np.concatenate([np.eye(piece.ndim), -np.eye(piece.ndim)])
    return corners((2 * ends[:, None] + steps).reshape(-1, piece.ndim))


def corners(points: Points) -> Points:
    """Those of the points (n, 2 or 3) that are corners of their convex hull; all of them where they are few."""
    if len(points) <= _FEW or points.shape[1] < 2:
        return points
    return points[ConvexHull(points).vertices]


def diameters(points: Points) -> tuple[float, ...]:
    """The longest distance of two points, then the largest extent perpendicular to it, and so on: one per axis.

    The second is the longest diameter of the points' projection onto the plane (or line) perpendicular to the first,
    the third the extent perpendicular to both. Of several longest distances (within ``TIE_MM``) the one whose
    perpendicular extents are larger is taken, so that the order of the points has no say.

    Args:
        points: (n, 1 to 3) corners of a hull, mm; n > 1 and not all of them the same.

    Returns:
        As many lengths as the points have coordinates, mm, largest first.
    """
    if points.shape[1] == 1:
        return (float(np.ptp(points)),)
    longest, directions = _widest(points)
    candidates = [diameters(corners(points @ _across(direction))) for direction in directions]
    best = candidates
    for place in range(points.shape[1] - 1):
        most = max(c[place] for c in best)
        best = [c for c in best if c[place] >= most - TIE_MM]
    return (longest, *best[0])


def _widest(points: Points) -> tuple[float, Points]:
    """The longest distance of two points and the unit vectors, each once, along which it lies."""
    squares, ties = 0.0, np.zeros((0, points.shape[1]))
    for begin in range(0, len(points), _CHUNK):
        gaps = points[None, begin:] - points[begin : begin + _CHUNK, None]
        square = np.einsum("ijk,ijk->ij", gaps, gaps)
        squares = max(squares, float(square.max()))
        near = square >= (max(np.sqrt(squares) - TIE_MM, 0.0)) ** 2
        ties = np.concatenate([ties, gaps[near]])
    lengths = np.linalg.norm(ties, axis=1)
    longest = float(np.sqrt(squares))
    directions = ties[lengths >= longest - TIE_MM] / lengths[lengths >= longest - TIE_MM, None]
    rounded = np.round(directions, 6) + 0.0
    leading = np.take_along_axis(rounded, np.argmax(rounded != 0, axis=1)[:, None], axis=1)
    _, once = np.unique(rounded * np.sign(leading), axis=0, return_index=True)  # a vector and its opposite are one
    return longest, directions[once]


def _across(direction: Points) -> Points:
    """(n, n - 1) orthonormal columns perpendicular to a unit vector of n coordinates."""
    return np.linalg.svd(direction[None])[2][1:].T
