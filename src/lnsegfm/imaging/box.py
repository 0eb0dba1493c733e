"""The part of a volume that a mask takes up."""

from __future__ import annotations

import numpy as np

from lnsegfm.errors import DataError

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


def _extent(occupied: np.ndarray) -> slice | None:
    if not occupied.any():
        return None
    return slice(int(occupied.argmax()), int(len(occupied) - occupied[::-1].argmax()))
