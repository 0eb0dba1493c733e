"""The hash of a scan's voxels, by which it is recognised in another file, format or storage."""

from __future__ import annotations

import hashlib

import numpy as np

from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.orientation import turn_to

DIGITS = 32
"""Hexadecimal digits of a scan's hash: 128 bits of a SHA-256."""
_AXES = "RAS"
_DECIMALS = 2  # rounding of a rescaled file does not matter; HU differ by whole numbers


def scan_hash(volume: np.ndarray, grid: Grid) -> str:
    """A hash that two files of one scan share: it is of the voxels' values alone, turned to fixed axes.

    Format, number type, orientation of the storage, spacing and position play no part. A scan that was resampled,
    cropped or rescaled has another one.

    Args:
        volume: Voxels (z, y, x), such as HU; they are compared to 0.01.
        grid: Where they lie.

    Returns:
        32 hexadecimal digits.
    """
    turned = turn_to(grid, _AXES).forth(volume)
    digest = hashlib.sha256(str(turned.shape).encode())
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large for single precision is infinite there
        for part in turned:
            values = part.astype("<f4")
            if not np.issubdtype(part.dtype, np.integer):
                values = np.round(values, _DECIMALS) + np.float32(0)  # and no -0.0
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:DIGITS]
