"""The three planes of a scan, turned as radiology shows them, whatever the axis order and direction of the file.

Axial: seen from the feet, the patient's right at the left, the front at the top. Coronal: seen from the front, the
patient's right at the left, the head at the top. Sagittal: seen from the patient's left, the front at the left, the
head at the top. The slices are those of the file's own axes, each plane taking the axis nearest to its normal, so an
oblique scan is shown as it was stored; the letters at the edges then say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

import numpy as np

Plane = Literal["axial", "coronal", "sagittal"]
PLANES: tuple[Plane, ...] = ("axial", "coronal", "sagittal")

_X, _Y, _Z = np.eye(3)  # LPS: to the patient's left, back and head
_RIGHT = {"axial": (0, _X), "coronal": (0, _X), "sagittal": (1, _Y)}  # world axis, and where the columns grow to
_DOWN = {"axial": (1, _Y), "coronal": (2, -_Z), "sagittal": (2, -_Z)}
_THROUGH = {"axial": 2, "coronal": 1, "sagittal": 0}

_TWO_LETTERS = np.sin(np.radians(15))


@dataclass(frozen=True)
class View:
    """How an array (z, y, x) is turned to show the slices of one plane.

    Args:
        plane: Which plane.
        order: The array's axes in the order (slices, rows, columns) of the view.
        flip: Whether rows and columns run against that (the slices keep the file's order and numbers).
        letters: What lies at the left, right, top and bottom edge: R, L, A, P, H or F (head, feet), and a second
            letter where the slice is oblique by more than 15 degrees.
    """

    plane: Plane
    order: tuple[int, int, int]
    flip: tuple[bool, bool]
    letters: tuple[str, str, str, str]

    def turn(self, array: np.ndarray) -> np.ndarray:
        """The array as (slices, rows, columns) of the view; a view of the same memory."""
        rows, columns = (slice(None, None, -1 if f else None) for f in self.flip)
        return array.transpose(self.order)[:, rows, columns]

    def place(self, index: Sequence[int], shape: Sequence[int]) -> tuple[int, int, int]:
        """Where the voxel ``index`` (z, y, x) of an array of ``shape`` is: its slice, row and column of the view."""
        slice_, row, column = (int(index[axis]) for axis in self.order)
        last = [shape[axis] - 1 for axis in self.order]
        return slice_, last[1] - row if self.flip[0] else row, last[2] - column if self.flip[1] else column

    def pixel_mm(self, spacing_mm: Sequence[float]) -> tuple[float, float]:
        """Height and width of a pixel, from the spacing of the array's axes (z, y, x)."""
        return spacing_mm[self.order[1]], spacing_mm[self.order[2]]


def view_of(direction: Sequence[float], plane: Plane) -> View:
    """The view of a plane for an image with this direction matrix.

    Args:
        direction: Row-major 3 x 3; column c is the LPS direction of the image's c-th index (x, y, z).
        plane: Which plane.
    """
    world = np.asarray(direction, dtype=float).reshape(3, 3)[:, ::-1]  # column a: where array axis a (z, y, x) points
    axis_of = max(permutations(range(3)), key=lambda p: sum(abs(world[w, axis]) for w, axis in enumerate(p)))
    (down_world, down_wish), (right_world, right_wish) = _DOWN[plane], _RIGHT[plane]
    order = (axis_of[_THROUGH[plane]], axis_of[down_world], axis_of[right_world])
    rows, columns = world[:, order[1]], world[:, order[2]]
    flip = (bool(rows @ down_wish < 0), bool(columns @ right_wish < 0))
    down, right = (-rows if flip[0] else rows), (-columns if flip[1] else columns)
    return View(plane, order, flip, (_letters(-right), _letters(right), _letters(-down), _letters(down)))


def _letters(towards: np.ndarray) -> str:
    """The patient's side a direction (LPS) points to; two letters where it leans more than 15 degrees."""
    names = (("R", "L"), ("A", "P"), ("F", "H"))
    strongest = sorted(range(3), key=lambda axis: -abs(towards[axis]))[:2]
    leaning = [axis for i, axis in enumerate(strongest) if i == 0 or abs(towards[axis]) > _TWO_LETTERS]
    return "".join(names[axis][int(towards[axis] > 0)] for axis in leaning)
