"""Signed distances of solids on a grid of points, each computed only where the solid lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lnsegfm.datasets.phantom.anatomy import Anatomy
from lnsegfm.datasets.phantom.shapes import Array, Solid
from lnsegfm.imaging.box import Box

_FAR_MM = 1e3


@dataclass(frozen=True, eq=False)
class Points:
    """The points of a rectangular grid in the scan's frame.

    Args:
        z, y, x: Ascending coordinates along each axis, mm.
    """

    z: Array
    y: Array
    x: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Points along (z, y, x)."""
        return len(self.z), len(self.y), len(self.x)

    def box(self, low: Array, high: Array, margin_mm: float) -> Box | None:
        """The part within a box of corners (x, y, z) and a margin; None where there is none."""
        slices = []
        for axis, a, b in zip((self.z, self.y, self.x), low[::-1], high[::-1], strict=True):
            first, last = np.searchsorted(axis, (a - margin_mm, b + margin_mm))
            if first >= last:
                return None
            slices.append(slice(int(first), int(last)))
        return slices[0], slices[1], slices[2]

    def at(self, box: Box) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates x, y, z of a part of the grid; they broadcast to its shape (z, y, x)."""
        z, y, x = (a[s].astype(np.float32) for a, s in zip((self.z, self.y, self.x), box, strict=True))
        return x[None, None, :], y[None, :, None], z[:, None, None]


def part_distances(anatomy: Anatomy, solid: Solid, points: Points, margin_mm: float) -> Iterator[tuple[Box, Array]]:
    """Where each part of a solid lies, ``margin_mm`` around it included, and the signed distances there."""
    for part in solid.parts:
        box = points.box(*anatomy.box(part, margin_mm), 0.0)
        if box is not None:
            yield box, part.distance(*anatomy.to_patient(*points.at(box)))


def solid_distance(
    anatomy: Anatomy, solid: Solid, points: Points, margin_mm: float
) -> tuple[Box, NDArray[np.float32]] | None:
    """Signed distances (mm) in the box of a whole solid; right where they are less than ``margin_mm``."""
    box = points.box(*anatomy.box(solid, margin_mm), 0.0)
    if box is None:
        return None
    least = np.full(tuple(s.stop - s.start for s in box), _FAR_MM, np.float32)
    for inner, d in part_distances(anatomy, solid, points, margin_mm):
        near = least[tuple(slice(i.start - b.start, i.stop - b.start) for i, b in zip(inner, box, strict=True))]
        np.minimum(near, d, out=near)
    return box, least
