"""The patient in a scan on a coarse grid: what lies outside, and where the table is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from lnsegfm.imaging.grid import Grid

SKIN_HU = -300.0
_COARSE_MM = 2.5
_TABLE_HU = -700.0
_TABLE_WIDTH_MM, _TABLE_HEIGHT_MM, _TABLE_LENGTH = 250.0, 90.0, 0.7


@dataclass(frozen=True, eq=False)
class Body:
    """Where the patient is.

    Args:
        inside: Boolean, every ``step``-th voxel of the scan (z, y, x): the patient with lungs and gut, two coarse
            voxels wider than the skin.
        step: Voxels of the scan from one to the next along (z, y, x).
        table_in_front: Whether a table lies in front of the patient, who then lies prone or is turned in the header.
    """

    inside: np.ndarray
    step: tuple[int, int, int]
    table_in_front: bool

    def outside(self, mask: np.ndarray) -> dict[int, int]:
        """Voxels outside the patient, by label value (0 left out), of a mask on the scan's grid."""
        sizes = zip(mask.shape, self.step, self.inside.shape, strict=True)
        steps = [np.minimum(np.arange(fine) // step, coarse - 1) for fine, step, coarse in sizes]
        counts: dict[int, int] = {}
        for z, plane in enumerate(mask):
            if not plane.any():
                continue
            out = plane[~self.inside[steps[0][z]][np.ix_(steps[1], steps[2])]]
            for value, count in zip(*np.unique(out[out != 0], return_counts=True), strict=True):
                counts[int(value)] = counts.get(int(value), 0) + int(count)
        return counts


def find_body(volume: np.ndarray, grid: Grid) -> Body | None:
    """Find the patient in a scan in HU, on a grid of about 2.5 mm; None where nothing is denser than -300 HU.

    The patient is the largest connected component above -300 HU, and what its axial slices enclose.
    """
    z, y, x = (max(1, int(_COARSE_MM // s)) for s in grid.spacing_mm)
    step = (z, y, x)
    coarse = volume[tuple(slice(None, None, s) for s in step)]
    components, count = ndimage.label(coarse > SKIN_HU)
    if not count:
        return None
    sizes = np.bincount(components.ravel())
    body = _with_holes_filled(components == sizes[1:].argmax() + 1, grid)
    inside = ndimage.binary_dilation(body, np.ones((3, 3, 3)), iterations=2)
    spacing = np.array(grid.spacing_mm) * step
    return Body(inside, step, _table_in_front(coarse, body, grid, spacing))


def _axes(grid: Grid) -> tuple[int, int, int]:
    """The array's axes that lie nearest to the patient's head-foot, back-front and left-right line."""
    world = np.abs(np.array(grid.direction).reshape(3, 3)[:, ::-1])
    head = int(world[2].argmax())
    back = max((a for a in range(3) if a != head), key=lambda a: world[1, a])
    return head, back, 3 - head - back


def _with_holes_filled(body: np.ndarray, grid: Grid) -> np.ndarray:
    """A mask with the holes of its axial slices filled: air that is not connected to the edge of its slice."""
    head = _axes(grid)[0]
    plane = np.moveaxis(body, head, 0)
    flat = np.zeros((3, 3, 3), bool)
    flat[1] = ndimage.generate_binary_structure(2, 1)
    air, count = ndimage.label(~plane, structure=flat)
    edge = np.zeros(count + 1, bool)
    for side in (air[:, 0], air[:, -1], air[:, :, 0], air[:, :, -1]):
        edge[np.unique(side)] = True
    edge[0] = False
    return np.moveaxis(~edge[air], 0, head)


def _table_in_front(coarse: np.ndarray, body: np.ndarray, grid: Grid, spacing: np.ndarray) -> bool:
    """Whether something wide, flat and long that does not touch the patient lies in front only."""
    head, back, side = _axes(grid)
    shape = body.shape
    near = ndimage.binary_dilation(body, iterations=max(1, round(5 / float(spacing.min()))))
    rest, _ = ndimage.label((coarse > _TABLE_HU) & ~near)
    sign = np.sign(np.array(grid.direction).reshape(3, 3)[1, 2 - back])  # whether indices grow to the back
    middle = float(np.mean(np.nonzero(body.any(axis=(head, side)))[0]))
    in_front = set()
    for place in ndimage.find_objects(rest):
        extent = [(part.stop - part.start) * mm for part, mm in zip(place, spacing, strict=True)]
        long_enough = (place[head].stop - place[head].start) >= _TABLE_LENGTH * shape[head]
        if extent[side] >= _TABLE_WIDTH_MM and extent[back] <= _TABLE_HEIGHT_MM and long_enough:
            centre = (place[back].start + place[back].stop - 1) / 2
            in_front.add(bool((centre - middle) * sign < 0))
    return in_front == {True}
