"""Resample the slices of a sheared series (gantry tilt) onto an orthogonal grid."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.dicom.series_index import Slice
from lnsegfm.imaging.grid import Grid


def shift_in_plane(plane: np.ndarray, slice_: Slice, grid: Grid, fill: float) -> np.ndarray:
    """A slice's pixels at the pixel centres of ``grid``: a shift within its plane, interpolated linearly.

    The slice stays at its place along the normal, because a gantry tilt moves slices within their planes only.

    Args:
        plane: (rows, columns).
        slice_: Where the plane lies.
        grid: With the orientation and pixel spacing of the slice.
        fill: Value outside the slice (beyond the centres of its border pixels).

    Returns:
        float32 of the grid's rows and columns.
    """
    direction = np.array(grid.direction).reshape(3, 3)
    along = (np.array(slice_.position_mm) - grid.origin_mm) @ direction[:, :2]  # mm along the row and the column
    # rounded, or else the last bit of a position would put the border pixels outside
    right, down = round(along[0] / grid.spacing_mm[2], 6), round(along[1] / grid.spacing_mm[1], 6)
    out = np.empty(grid.shape[1:], np.float32)
    ndimage.affine_transform(
        plane.astype(np.float32),
        np.ones(2),
        offset=(-down, -right),
        output_shape=out.shape,
        output=out,
        order=1,
        mode="constant",
        cval=fill,
    )
    return out
