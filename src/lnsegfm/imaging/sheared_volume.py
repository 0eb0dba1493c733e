"""Resample a volume whose axes are not at right angles (gantry tilt) onto an orthogonal grid."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.grid import RAS_TO_LPS, Grid

_MARGIN = 1e-6  # voxels: what rounding makes of a corner that lies on a voxel


def straightened(voxels: np.ndarray, matrix: np.ndarray, *, labels: bool) -> tuple[np.ndarray, Grid]:
    """The volume on a grid at right angles that holds all of it.

    The first axis keeps its direction, the second its plane with the first; the distances of planes, rows and columns
    are those along the new axes. So a tilted gantry's slices are shifted in their planes and stay where they are.

    Args:
        voxels: (z, y, x).
        matrix: (4, 4) index (x, y, z) to mm, RAS.
        labels: They are labels: the nearest voxel counts, 0 outside. Otherwise they are interpolated linearly, and
            what lies outside is the smallest value.

    Returns:
        Voxels (z, y, x) in their own number type, float32 where that is interpolated, and the grid.
    """
    axes, steps = RAS_TO_LPS @ matrix[:3, :3], np.empty(3)
    basis = np.empty((3, 3))
    for k in range(3):
        rest = axes[:, k] - basis[:, :k] @ (basis[:, :k].T @ axes[:, k])
        steps[k] = np.linalg.norm(rest)
        basis[:, k] = rest / steps[k]
    size = np.array(voxels.shape[::-1])
    origin = RAS_TO_LPS @ matrix[:3, 3]
    corners = np.array(list(product(*((0, n - 1) for n in size)))) @ axes.T @ basis / steps
    low, high = np.floor(corners.min(axis=0) + _MARGIN), np.ceil(corners.max(axis=0) - _MARGIN)
    shape = (high - low).astype(int) + 1
    grid = Grid(
        (int(shape[2]), int(shape[1]), int(shape[0])),
        (float(steps[2]), float(steps[1]), float(steps[0])),
        tuple(origin + basis @ (low * steps)),
        tuple(basis.ravel()),
    )
    back = np.linalg.inv(axes) @ (basis * steps)  # index of the grid to index of the volume, (x, y, z)
    out = ndimage.affine_transform(
        voxels if labels else voxels.astype(np.float32),
        back[::-1, ::-1],
        offset=(back @ low)[::-1].round(9),
        output_shape=grid.shape,
        order=0 if labels else 1,
        mode="constant",
        cval=0 if labels else float(voxels.min()),
    )
    return out, grid
