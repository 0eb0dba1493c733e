"""Axis codes, and exact turns of arrays to other axes: permutations and flips alone, no voxel is computed anew.

Arrays are ordered (z, y, x), so the last letter of an axis code (`lnsegfm.imaging.axis_code`) is that of the array's
first axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product

import numpy as np

from lnsegfm.imaging.axis_code import AXIS_CODES, DIRECTIONS
from lnsegfm.imaging.grid import Grid

_DIGITS = 6  # of a direction cosine that count: rounding in a file does not decide between two turns


@dataclass(frozen=True)
class Turn:
    """A permutation of an array's axes and flips; it also goes back, exactly.

    Args:
        order: Which axis (z, y, x) of the array becomes the first, the second and the third.
        flipped: Whether each of these then runs the other way.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    def __bool__(self) -> bool:
        return self != Turn()

    def forth(self, array: np.ndarray) -> np.ndarray:
        """The turned array, a view; its last three axes are turned, as of (classes, z, y, x)."""
        return np.flip(self._moved(array, self.order), self._backwards(array))

    def back(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `forth`, a view."""
        return self._moved(np.flip(array, self._backwards(array)), [self.order.index(axis) for axis in range(3)])

    def grid(self, grid: Grid) -> Grid:
        """The grid of the turned array: every voxel lies where it did."""
        columns = self.directions(np.reshape(grid.direction, (3, 3)))
        spacing, shape = ([of[axis] for axis in self.order] for of in (grid.spacing_mm, grid.shape))
        origin = np.array(grid.origin_mm)
        for place, flip in enumerate(self.flipped):
            if flip:
                origin = origin - columns[:, 2 - place] * spacing[place] * (shape[place] - 1)
        return Grid(tuple(shape), tuple(spacing), tuple(origin), tuple((columns + 0.0).ravel()))  # type: ignore[arg-type]

    def directions(self, direction: np.ndarray) -> np.ndarray:
        """The direction cosines (3, 3) of the turned array; column k is that of index k of (x, y, z)."""
        columns = [2 - axis for axis in self.order[::-1]]
        turned: np.ndarray = direction[:, columns] * np.where(self.flipped[::-1], -1.0, 1.0)
        return turned

    def _moved(self, array: np.ndarray, order: Sequence[int]) -> np.ndarray:
        lead = array.ndim - 3
        return array.transpose(*range(lead), *(lead + axis for axis in order))

    def _backwards(self, array: np.ndarray) -> tuple[int, ...]:
        return tuple(array.ndim - 3 + place for place, flip in enumerate(self.flipped) if flip)


_WAYS = (False, True)
TURNS = tuple(
    Turn((a, b, c), (i, j, k)) for a, b, c in permutations(range(3)) for i, j, k in product(_WAYS, _WAYS, _WAYS)
)
"""All 48."""


def nearest_turn(grid: Grid, direction: Sequence[float]) -> Turn:
    """The turn that brings an array's axes nearest to given directions.

    The strongest cosine between an axis and a wanted direction decides first, then the next of those that are left, as
    in SimpleITK's ``DICOMOrient``, nibabel's ``as_closest_canonical`` and so nnU-Net's readers that reorient. Where
    these are equal (a scan at 45 degrees between two axes, to 1e-6), the turn is taken whose direction cosines, read
    row by row, are lexicographically largest: that depends on how the scan lies in the patient, not on its storage.

    Args:
        grid: The array's.
        direction: Nine direction cosines, as of `Grid`.
    """
    own, wanted = np.reshape(grid.direction, (3, 3)), np.reshape(direction, (3, 3))

    def nearness(turn: Turn) -> tuple[float, ...]:
        turned = turn.directions(own)
        return (*_strength(turned, wanted), *(np.round(turned, _DIGITS) + 0.0).ravel().tolist())

    return max(TURNS, key=nearness)


def turn_to(grid: Grid, axes: str | None) -> Turn:
    """The turn to an axis code; None where arrays stay as they are stored.

    Args:
        grid: The array's.
        axes: Such as ``RAS``.
    """
    return Turn() if axes is None else nearest_turn(grid, tuple(_DIRECTION_OF[axes].ravel()))


def turned_onto(array: np.ndarray, grid: Grid, target: Grid) -> tuple[np.ndarray, Grid]:
    """An array and its grid on the axes of another grid, such as a mask on those of its scan."""
    turn = nearest_turn(grid, target.direction)
    return turn.forth(array), turn.grid(grid)


def same_voxels(grid: Grid, target: Grid) -> bool:
    """Whether two grids hold the same voxels, on whatever axes (`Grid.same_voxels`)."""
    return target.same_voxels(nearest_turn(grid, target.direction).grid(grid))


def axis_codes(grid: Grid) -> str:
    """The axis code nearest to a grid's axes, as `nearest_turn` has it; of equal ones the first of `AXIS_CODES`."""
    own = np.reshape(grid.direction, (3, 3))
    return max(AXIS_CODES, key=lambda axes: _strength(own, _DIRECTION_OF[axes]))


def _strength(own: np.ndarray, wanted: np.ndarray) -> tuple[float, ...]:
    """The cosine between each axis and its direction, the largest first."""
    return tuple(sorted(((own * wanted).sum(axis=0).round(_DIGITS) + 0.0).tolist(), reverse=True))


def _matrix(axes: str) -> np.ndarray:
    matrix = np.zeros((3, 3))
    for column, letter in enumerate(axes):
        (axis,) = (number for number, letters in enumerate(DIRECTIONS) if letter in letters)
        matrix[axis, column] = 1.0 if letter == DIRECTIONS[axis][1] else -1.0
    return matrix


_DIRECTION_OF = {axes: _matrix(axes) for axes in AXIS_CODES}
