"""Where the pixels of a segmentation's frame lie on a grid: whole indices, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lnsegfm.imaging.dicom.dicom_errors import DicomError
from lnsegfm.imaging.grid import Grid

TOLERANCE_VOXELS = 0.1
"""A pixel centre may be this far from a voxel's, along each axis of the grid. Half a voxel is the mistake to find;
headers that round a position to a hundredth of a millimetre are not."""

TOLERANCE_SINE = 2e-3
"""A frame's rows and columns may run this far off the axes of the grid (0.1 degrees): headers round cosines."""

Indices = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Voxels of an array (z, y, x)."""


@dataclass(frozen=True)
class FramePlane:
    """A frame in the patient.

    Args:
        shape: Rows and columns.
        position_mm: (x, y, z) of the centre of the first pixel, LPS.
        along_row: Unit vector along which the column index grows (the first triplet of ImageOrientationPatient).
        along_column: Unit vector along which the row index grows (the second triplet).
        spacing_mm: Between rows and between columns (PixelSpacing).
    """

    shape: tuple[int, int]
    position_mm: tuple[float, float, float]
    along_row: tuple[float, float, float]
    along_column: tuple[float, float, float]
    spacing_mm: tuple[float, float]

    @property
    def normal(self) -> np.ndarray:
        """Unit vector across the plane."""
        return np.cross(self.along_row, self.along_column)


@dataclass(frozen=True)
class Placement:
    """Pixel [i, j] of a frame is voxel ``start + i * row_step + j * column_step``, all of them (x, y, z)."""

    start: tuple[int, int, int]
    row_step: tuple[int, int, int]
    column_step: tuple[int, int, int]

    @property
    def steps(self) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The steps along rows and along columns."""
        return self.row_step, self.column_step

    def indices(self, rows: np.ndarray, columns: np.ndarray) -> Indices:
        """Voxel indices (z, y, x) of pixels; they may lie outside the grid."""
        x, y, z = (
            self.start[axis] + rows * self.row_step[axis] + columns * self.column_step[axis] for axis in range(3)
        )
        return z, y, x


def place_on_grid(plane: FramePlane, grid: Grid) -> Placement:
    """Where a frame lies on a grid. Nothing is resampled: its pixels are voxels, or it is refused.

    The frame may be smaller than the grid's slices, and its rows may run along any axis of the grid, either way.

    Raises:
        DicomError: It lies between voxels; the message says by how much, as a clause.
    """
    if turned := _turned(plane, grid):
        raise DicomError(turned)
    axes = np.array(grid.direction).reshape(3, 3) * np.array(grid.spacing_mm[::-1])
    to_index = np.linalg.inv(axes)
    row_step = to_index @ np.array(plane.along_column) * plane.spacing_mm[0]
    column_step = to_index @ np.array(plane.along_row) * plane.spacing_mm[1]
    start = to_index @ (np.array(plane.position_mm) - np.array(grid.origin_mm))
    whole = [np.rint(v) for v in (start, row_step, column_step)]
    if any(np.abs(step).sum() != 1 for step in whole[1:]) or whole[1] @ whole[2] != 0:
        raise DicomError(_scaled(plane, grid))
    last = np.array(plane.shape) - 1
    for i, j in ((0, 0), (last[0], 0), (0, last[1]), (last[0], last[1])):
        gap = (start - whole[0]) + i * (row_step - whole[1]) + j * (column_step - whole[2])
        if np.abs(gap).max() > TOLERANCE_VOXELS:
            if (i, j) != (0, 0):
                raise DicomError(_scaled(plane, grid))
            x, y, z = np.round(np.abs(gap), 6)
            at = _row(plane.position_mm)
            raise DicomError(f"it starts at {at} mm, between voxels (off by {z:.3g}, {y:.3g}, {x:.3g} along z, y, x)")
    first, down, right = ((int(v[0]), int(v[1]), int(v[2])) for v in whole)
    return Placement(first, down, right)


def _turned(plane: FramePlane, grid: Grid) -> str | None:
    directions = np.array(grid.direction).reshape(3, 3)
    for name, along in (("rows", plane.along_row), ("columns", plane.along_column)):
        sine = float(np.sort(np.abs(directions.T @ np.array(along)))[1])  # across the axis that it comes closest to
        if sine > TOLERANCE_SINE:
            degrees = np.degrees(np.arcsin(min(sine, 1.0)))
            return f"its {name} run along {_row(along)}, {degrees:.3g} degrees off the axes of the grid"
    return None


def _scaled(plane: FramePlane, grid: Grid) -> str:
    pixels = " x ".join(f"{s:.6g}" for s in plane.spacing_mm)
    return f"its pixels are {pixels} mm and the grid's voxels {_row(grid.spacing_mm)} mm (z, y, x)"


def _row(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{round(float(v), 6) + 0.0:.6g}" for v in values) + ")"
