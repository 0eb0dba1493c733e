"""Place a mask that was saved with other axes, or for a part of the scan, on the scan's grid voxel by voxel.

Nothing is resampled: each voxel of the mask is one voxel of the scan, or the mask is refused.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import turned_onto

TOLERANCE = 0.25
"""Voxels by which a mask's voxel may lie off the scan's, anywhere in it: formats round positions."""


def require_same_grid(first: Grid, second: Grid, what: str) -> None:
    """Refuse two files of one case that lie elsewhere.

    Raises:
        DataError: Their grids differ.
    """
    if (difference := first.difference(second)) is not None:
        raise DataError(f"{what} have different geometries: {difference}. Fetch the case again.")


def place_by_position(mask: np.ndarray, grid: Grid, target: Grid) -> tuple[np.ndarray, str | None]:
    """Put a mask onto the grid of its scan by the positions of its voxels.

    Flipped axes, axes in another order and a mask that covers a part of the scan (as 3D Slicer saves segmentations)
    are undone exactly.

    Args:
        mask: Label values (z, y, x).
        grid: The mask's grid.
        target: The scan's grid.

    Returns:
        Label values on the scan's grid, and what was done in words; None where the grids were equal.

    Raises:
        DataError: The voxels do not coincide, or a labelled voxel lies outside the scan.
    """
    if grid.difference(target) is None:
        return mask, None
    oriented, turned = turned_onto(mask, grid, target)
    matrix, offset = _between(turned, target)
    shift = np.rint(offset)
    corners = np.array(list(product(*((0, n - 1) for n in reversed(turned.shape)))), dtype=float)
    off = np.abs(corners @ (matrix - np.eye(3)).T + (offset - shift)).max()
    if not _same_voxels(matrix) or off > TOLERANCE:
        raise DataError(
            f"The mask's voxels are not the scan's: {grid.difference(target)}. Export it on the scan's grid."
        )
    start = tuple(int(first) for first in reversed(shift))
    return _paste(oriented, start, target), f"mask moved onto the scan's grid: {grid.difference(target)}"


def place_by_axes(mask: np.ndarray, grid: Grid, target: Grid) -> tuple[np.ndarray, str]:
    """Put a mask onto the grid of its scan by its axes alone: its origin is ignored.

    For files whose origin was lost and whose axes and size are the scan's.

    Raises:
        DataError: The axes or sizes are not the scan's.
    """
    oriented, turned = turned_onto(mask, grid, target)
    matrix, _ = _between(turned, target)
    fits = (np.abs(matrix - np.eye(3)) @ np.array(turned.shape[::-1])).max() <= TOLERANCE * 2
    if fits and _same_voxels(matrix) and oriented.shape == target.shape:
        return oriented, f"mask put onto the scan by its axes, not by its origin: {grid.difference(target)}"
    raise DataError(f"The mask does not fit the scan: {grid.difference(target)}. Export it on the scan's grid.")


def _between(grid: Grid, target: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset that take an index (x, y, z) of one grid to an index of the other."""
    inverse = np.linalg.inv(_axes(target))
    return inverse @ _axes(grid), inverse @ (np.array(grid.origin_mm) - np.array(target.origin_mm))


def _axes(grid: Grid) -> np.ndarray:
    return np.array(grid.direction).reshape(3, 3) * np.array(grid.spacing_mm[::-1])


def _same_voxels(matrix: np.ndarray) -> bool:
    """Each axis goes to its own, with voxels of about the same size."""
    return bool((np.rint(matrix) == np.eye(3)).all())


def _paste(oriented: np.ndarray, start: tuple[int, ...], target: Grid) -> np.ndarray:
    out = np.zeros(target.shape, oriented.dtype)
    into, of = [], []
    for first, size, room in zip(start, oriented.shape, target.shape, strict=True):
        low, high = max(first, 0), min(first + size, room)
        into.append(slice(low, max(low, high)))
        of.append(slice(low - first, max(low, high) - first))
    inside = oriented[tuple(of)]
    outside = int(np.count_nonzero(oriented)) - int(np.count_nonzero(inside))
    if outside:
        raise DataError(f"{outside} labelled voxels lie outside the scan. Check that mask and scan belong together.")
    out[tuple(into)] = inside
    return out
