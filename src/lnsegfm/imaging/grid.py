"""Where the voxels of a volume lie in the patient.

Arrays are ordered (z, y, x), as ``SimpleITK.GetArrayFromImage`` gives them; world coordinates are millimetres in LPS
(x to the patient's left, y to the back, z to the head).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from lnsegfm.errors import DataError

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
"""World coordinates of NIfTI to those of DICOM and ITK; it is its own inverse."""
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SAME_VOXEL = 0.1
"""By this share of a voxel, along each axis, two files of one scan may differ in where a voxel lies: tools round."""


@dataclass(frozen=True)
class Grid:
    """The geometry of a volume, as a value: two grids that are equal put every voxel at the same place.

    Args:
        shape: Voxels along (z, y, x).
        spacing_mm: Distance between voxel centres along (z, y, x).
        origin_mm: (x, y, z) of the centre of voxel [0, 0, 0], LPS.
        direction: The nine direction cosines, row by row, as SimpleITK gives them: column k is the unit vector along
            which index k of (x, y, z) grows.

    Raises:
        DataError: Something of it is not a geometry (a spacing of zero, axes that are not at right angles, ...).
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = IDENTITY

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        for name in ("spacing_mm", "origin_mm", "direction"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise DataError(f"Shape {self.shape}: a volume has three axes of at least one voxel. Give (z, y, x).")
        if len(self.spacing_mm) != 3 or not all(math.isfinite(s) and s > 0 for s in self.spacing_mm):
            raise DataError(f"Spacing {self.spacing_mm} mm: each must be a positive number. Correct the header.")
        if len(self.origin_mm) != 3 or not all(map(math.isfinite, self.origin_mm)):
            raise DataError(f"Origin {self.origin_mm} mm: not three finite numbers. Correct the header.")
        if len(self.direction) != 9 or not _is_orthonormal(self.direction):
            raise DataError(f"Direction {self.direction}: its axes are not at right angles. Resample the image.")

    @classmethod
    def from_image(cls, image: Any) -> Grid:
        """The grid of a three-dimensional ``SimpleITK.Image`` (or of an ``ImageFileReader`` that has read a header)."""
        return cls(
            shape=tuple(reversed(image.GetSize())),
            spacing_mm=tuple(reversed(image.GetSpacing())),
            origin_mm=tuple(image.GetOrigin()),
            direction=tuple(image.GetDirection()),
        )

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in millilitres (1 ml = 1000 mm³)."""
        return math.prod(self.spacing_mm) / 1000.0

    def same_voxels(self, other: Grid, tolerance: float = SAME_VOXEL) -> bool:
        """Whether each voxel lies where the voxel of the same index of ``other`` lies.

        Args:
            other: The grid to compare with.
            tolerance: How far their centres may differ along each axis, as a share of a voxel.
        """
        return self.shape == other.shape and self.largest_shift(other) <= tolerance

    def largest_shift(self, other: Grid) -> float:
        """How far a voxel's centre lies from that of the same index of ``other`` at most, along an axis, in voxels."""
        axes, others = (
            np.array(grid.direction).reshape(3, 3) * np.array(grid.spacing_mm[::-1]) for grid in (self, other)
        )
        corners = np.array(list(product(*((0, n - 1) for n in reversed(self.shape)))))
        shift = corners @ (others - axes).T + (np.array(other.origin_mm) - np.array(self.origin_mm))
        return float(np.abs(shift @ np.linalg.inv(axes).T).max())  # linear: largest at a corner

    def difference(self, other: Grid, tolerance_mm: float = 1e-3, direction_tolerance: float = 1e-3) -> str | None:
        """Say what differs first between this grid and ``other``, with both values; None when they agree.

        Args:
            other: The grid to compare with.
            tolerance_mm: Spacings and origins may differ by this much in each coordinate. Formats round differently.
            direction_tolerance: Direction cosines may differ by this much (1e-3 is 0.06 degrees; a NIfTI quaternion
                in single precision is good to about 5e-4).
        """
        if self.shape != other.shape:
            return f"shape {_times(self.shape)} against {_times(other.shape)} voxels (z, y, x)"
        if (gap := _largest_gap(self.spacing_mm, other.spacing_mm)) > tolerance_mm:
            return f"spacing {_row(self.spacing_mm)} against {_row(other.spacing_mm)} mm (z, y, x; by {gap:.4g} mm)"
        if (gap := _largest_gap(self.origin_mm, other.origin_mm)) > tolerance_mm:
            return f"origin {_row(self.origin_mm)} against {_row(other.origin_mm)} mm (x, y, z; by {gap:.4g} mm)"
        if (gap := _largest_gap(self.direction, other.direction)) > direction_tolerance:
            return f"direction {_row(self.direction)} against {_row(other.direction)} (by {gap:.4g})"
        return None


def _is_orthonormal(direction: tuple[float, ...], tolerance: float = 1e-3) -> bool:
    if not all(map(math.isfinite, direction)):
        return False
    axes = [direction[k::3] for k in range(3)]
    return all(
        abs(sum(a * b for a, b in zip(axes[i], axes[j], strict=True)) - (i == j)) <= tolerance
        for i in range(3)
        for j in range(i, 3)
    )


def _largest_gap(one: Iterable[float], other: Iterable[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def _row(values: Iterable[float]) -> str:
    # six significant digits: what tells a wrong header, without the noise of its last bits (nor a minus before 0)
    return "(" + ", ".join(f"{round(v, 9) + 0.0:.6g}" for v in values) + ")"
