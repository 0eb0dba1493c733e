"""The part of a volume that a mask takes up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid

Box = tuple[slice, slice, slice]
"""Voxels of a volume along (z, y, x), from start to before stop: what an array is indexed with."""


def bounding_box(mask: np.ndarray) -> Box | None:
    """The smallest box that holds every true voxel of a mask (z, y, x); None where the mask is empty.

    It needs one plane of the volume in memory, never a list of its voxels.

    Raises:
        DataError: Not a three-dimensional boolean array.
    """
    if mask.dtype != np.bool_ or mask.ndim != 3:
        raise DataError(f"Mask of {mask.dtype} {mask.shape}: not a boolean volume. Pass mask == label.")
    along_z = _extent(np.array([plane.any() for plane in mask], dtype=bool))
    if along_z is None:
        return None
    projection = np.any(mask[along_z], axis=0)
    along_y, along_x = _extent(np.any(projection, axis=1)), _extent(np.any(projection, axis=0))
    return (along_z, along_y, along_x) if along_y is not None and along_x is not None else None


def crop_grid(grid: Grid, box: Box) -> Grid:
    """The grid of ``volume[box]``: every voxel stays where it is in the patient.

    Args:
        grid: The grid of the volume.
        box: Start and stop along (z, y, x), inside the grid, with at least one voxel along each axis.

    Raises:
        DataError: A box that is not such.
    """
    for part, size in zip(box, grid.shape, strict=True):
        if (
            part.step not in (None, 1)
            or not 0 <= (part.start or 0) < (size if part.stop is None else part.stop) <= size
        ):
            raise DataError(f"Box {box}: not inside a volume of {grid.shape} voxels. Take one that lies within.")
    starts, stops, _ = zip(*(part.indices(size) for part, size in zip(box, grid.shape, strict=True)), strict=True)
    steps_xyz = [first * spacing for first, spacing in zip(starts, grid.spacing_mm, strict=True)][::-1]
    rows = (grid.direction[0:3], grid.direction[3:6], grid.direction[6:9])
    x, y, z = (
        origin + sum(cosine * step for cosine, step in zip(row, steps_xyz, strict=True))
        for origin, row in zip(grid.origin_mm, rows, strict=True)
    )
    depth, height, width = (stop - start for start, stop in zip(starts, stops, strict=True))
    return replace(grid, shape=(depth, height, width), origin_mm=(x, y, z))


def _extent(occupied: np.ndarray) -> slice | None:
    if not occupied.any():
        return None
    return slice(int(occupied.argmax()), int(len(occupied) - occupied[::-1].argmax()))
