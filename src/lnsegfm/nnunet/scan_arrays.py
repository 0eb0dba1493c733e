"""A scan, and its reference, as the arrays that nnU-Net's preprocessing takes: channels stacked, on the model's axes.

nnU-Net's readers give the voxels of a file as they are stored (``SimpleITKIO``, ``NibabelIO``) or turned to RAS
(``NibabelIOWithReorient``), in both cases as (z, y, x). These are the same arrays for files of every format, scans in
memory and any axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume
from lnsegfm.imaging.orientation import Turn, turn_to, turned_onto

SAME = 1e-6
"""Relative difference of spacings that are one: NIfTI holds them in single precision."""


@dataclass(frozen=True, eq=False)
class ScanArrays:
    """A scan as nnU-Net's preprocessing takes it.

    Args:
        data: (C, z, y, x), float32, on the turned axes and in their order in memory, in which sums are taken.
        grid: Of the turned scan.
        turn: From the axes as the first channel is stored.
    """

    data: np.ndarray
    grid: Grid
    turn: Turn

    @classmethod
    def stack(cls, scans: Sequence[Volume], axes: str | None) -> ScanArrays:
        """Turn the channels of a scan, exactly, and stack them.

        Args:
            scans: One a channel; each may be stored on axes of its own.
            axes: The axis code to turn to; None takes the axes of the first channel.

        Raises:
            DataError: Channels of other shapes or spacings.
        """
        turn = turn_to(scans[0].grid, axes)
        grid = turn.grid(scans[0].grid)
        channels = [turn.forth(scans[0].array)]
        for scan in scans[1:]:
            channel, moved = turned_onto(scan.array, scan.grid, grid)
            if moved.shape != grid.shape or not np.allclose(moved.spacing_mm, grid.spacing_mm, rtol=SAME, atol=0):
                raise DataError(
                    f"{scan}: its grid is not that of {scans[0].name.rpartition('/')[2]}, another channel. "
                    "Resample it to that one's grid."
                )
            channels.append(channel)
        return cls(np.stack([np.ascontiguousarray(channel, dtype=np.float32) for channel in channels]), grid, turn)

    @property
    def properties(self) -> dict[str, Any]:
        """What nnU-Net's readers tell of a scan, and its preprocessing adds to."""
        grid = self.grid
        return {
            "sitk_stuff": {"spacing": grid.spacing_mm[::-1], "origin": grid.origin_mm, "direction": grid.direction},
            "spacing": list(grid.spacing_mm),
        }

    def reference(self, mask: Volume) -> np.ndarray:
        """The reference (1, z, y, x) of the scan on its turned axes, float32 as nnU-Net's readers give it.

        Args:
            mask: Label values; it may be stored on other axes than the scan.
        """
        turned, _ = turned_onto(mask.array, mask.grid, self.grid)
        return np.ascontiguousarray(turned, dtype=np.float32)[None]
