"""Three views of a mask on its scan, for a notebook."""

from __future__ import annotations

import numpy as np

from lnsegfm.imaging.grid import Grid
from lnsegfm.report.pictures import Scene, draw_place
from lnsegfm.report.views import view_of


def views_of_mask(image_hu: np.ndarray | None, mask: np.ndarray, grid: Grid, title: str) -> str:
    """The three planes through the middle of the axial slice on which most is labelled, as SVG.

    Args:
        image_hu: CT (z, y, x); None draws the mask alone.
        mask: Label values (z, y, x), 0 is background.
        grid: Where the voxels lie.
        title: What it shows, for people who cannot see it.
    """
    labelled = mask > 0
    scene = Scene(grid, image_hu, {"prediction": labelled})
    return draw_place(scene, _amid(labelled, view_of(grid.direction, "axial").order[0]), title=title, whole=True)


def _amid(mask: np.ndarray, axis: int) -> tuple[int, int, int]:
    """A voxel of the mask, nearest to the centre of what lies on the slice with most of it; else the scan's middle."""
    counts = mask.sum(axis=tuple(k for k in range(3) if k != axis))
    if not counts.any():
        z, y, x = (n // 2 for n in mask.shape)
        return z, y, x
    number = int(counts.argmax())
    there = np.argwhere(np.take(mask, number, axis=axis))
    at = there[np.argmin(((there - there.mean(axis=0)) ** 2).sum(axis=1))].tolist()
    at.insert(axis, number)
    return at[0], at[1], at[2]
