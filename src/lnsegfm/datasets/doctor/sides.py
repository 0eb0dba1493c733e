"""The left label of a pair lies on the patient's left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from lnsegfm.imaging.grid import Grid

CLEAR_MM = 5.0  # centres that are nearer than this in x prove nothing


def centre_x_mm(there: np.ndarray, grid: Grid) -> float | None:
    """LPS x of the centre of a label (boolean, z, y, x), mm (larger is further to the left); None where it is empty."""
    sums, count = np.zeros(3), 0
    for z, plane in enumerate(there):
        rows, columns = np.nonzero(plane)
        sums += (columns.sum(), rows.sum(), z * len(rows))
        count += len(rows)
    if not count:
        return None
    step = sums / count * grid.spacing_mm[::-1]
    return float(grid.origin_mm[0] + np.array(grid.direction[:3]) @ step)


def swapped(centres: Mapping[str, float], pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str, float]]:
    """The pairs whose left label lies to the right of its right one, and by how many mm."""
    return [
        (left, right, centres[right] - centres[left])
        for left, right in pairs
        if left in centres and right in centres and centres[right] - centres[left] > CLEAR_MM
    ]
