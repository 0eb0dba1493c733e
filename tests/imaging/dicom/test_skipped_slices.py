"""Slices left out between outlines: which are reported, and what is filled in."""

from __future__ import annotations

import numpy as np
import pytest

from lnsegfm.imaging.dicom.skipped_slices import filled_gaps, find_slice_gaps, gap_notes
from lnsegfm.imaging.dicom.structure_masks import roi_voxels
from lnsegfm.imaging.dicom.structure_set import Contour, Roi
from lnsegfm.imaging.grid import Grid

SPACING = (3.0, 1.0, 1.0)
GRID = Grid((14, 64, 64), SPACING)


def ball(z: float, y: float, x: float, radius_mm: float = 10.0) -> np.ndarray:
    index = np.stack(np.mgrid[:14, :64, :64], axis=-1)
    return np.sum(((index - (z, y, x)) * SPACING) ** 2, axis=-1) <= radius_mm**2


def disc(z: int, y: float, x: float, radius_mm: float) -> np.ndarray:
    voxels = np.zeros((14, 64, 64), bool)
    rows, columns = np.mgrid[:64, :64]
    voxels[z] = (rows - y) ** 2 + (columns - x) ** 2 <= radius_mm**2
    return voxels


def without(voxels: np.ndarray, *slices: int) -> np.ndarray:
    kept = voxels.copy()
    kept[list(slices)] = False
    return kept


def lines(voxels: np.ndarray) -> list[str]:
    return gap_notes("LN", voxels, find_slice_gaps(voxels, SPACING), 0, SPACING[0])


NODE, OTHER = ball(6, 20, 20), ball(6, 44, 44)


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (NODE, []),
        (without(NODE, 6), ["LN: slice 7 is skipped between contoured slices."]),
        (without(NODE, 5, 7), ["LN: slices 6, 8 are skipped between contoured slices."]),
        (without(NODE, 4, 6, 8), ["LN: contours on every second slice (6 mm apart, slices 3 mm)."]),
        (without(NODE, 4, 5, 7, 8), ["LN: contours on every third slice (9 mm apart, slices 3 mm)."]),
        (without(NODE, 6) | OTHER, ["LN: slice 7 is skipped between contoured slices."]),  # of one of two objects
        (without(NODE, 6) | without(OTHER, 5), ["LN: slices 6, 7 are skipped between contoured slices."]),
        (ball(2, 20, 20, 5) | ball(10, 20, 20, 5), ["LN: nothing between slices 4 and 10, whose outlines overlap: "
                                                   "taken as two objects."]),
        (disc(4, 20, 20, 8) | disc(5, 20, 20, 8) | disc(7, 20, 32, 7), ["LN: nothing between slices 6 and 8, whose "
                                                   "outlines overlap: taken as two objects."]),
        (ball(2, 20, 20, 5) | ball(10, 44, 44, 5), []),
        (ball(1, 20, 20, 2) | ball(12, 20, 20, 2), []),  # fragments
    ],
)  # fmt: skip
def test_what_is_reported(voxels, expected):
    assert lines(voxels) == expected


@pytest.mark.parametrize("missing", [(6,), (5, 7), (4, 6, 8), (5, 6)])
def test_what_is_filled_in_lies_between_its_neighbours(missing):
    drawn = without(NODE, *missing)
    filled, added = filled_gaps(drawn, find_slice_gaps(drawn, SPACING), SPACING[1:])
    assert sorted(added) == sorted(missing)
    assert sum(added.values()) == np.count_nonzero(filled) - np.count_nonzero(drawn)
    assert not (filled & ~NODE & ~drawn).any()  # of a convex object nothing beyond it
    assert np.count_nonzero(filled) > 0.85 * np.count_nonzero(NODE)
    assert np.array_equal(filled[drawn.any(axis=(1, 2))], drawn[drawn.any(axis=(1, 2))])


def test_equal_outlines_are_filled_exactly_and_separate_objects_stay_apart():
    plane = NODE[6]
    column = np.repeat(plane[None], 14, axis=0)
    drawn = without(column, 1, 2, 5, 9)
    assert np.array_equal(filled_gaps(drawn, find_slice_gaps(drawn, SPACING), SPACING[1:])[0], column)

    two = without(NODE | OTHER, 6)
    filled, _ = filled_gaps(two, find_slice_gaps(two, SPACING), SPACING[1:])
    for node in (NODE, OTHER):
        assert 0.8 < np.count_nonzero(filled[6] & node[6]) / np.count_nonzero(node[6]) <= 1
    apart = ball(2, 20, 20, 5) | ball(10, 20, 20, 5)
    assert np.array_equal(filled_gaps(apart, find_slice_gaps(apart, SPACING), SPACING[1:])[0], apart)


def test_a_structure_is_filled_on_request_alone():
    def disc(k: int, radius: float = 8.2) -> Contour:
        angle = np.linspace(0, 2 * np.pi, 50, endpoint=False)
        x, y = 30.3 + radius * np.cos(angle), 31.2 + radius * np.sin(angle)
        return Contour(np.stack((x, y, np.full(50, 3.0 * k)), axis=1))

    roi = Roi(1, "LN", tuple(disc(k) for k in range(1, 12, 2)))
    drawn, filled = roi_voxels(roi, GRID), roi_voxels(roi, GRID, fill_between=True)
    said = "Structure 'LN': contours on every second slice (6 mm apart, slices 3 mm)."
    assert drawn.notes == (said,)
    assert [bool(plane.any()) for plane in drawn.voxels] == [True, False] * 5 + [True]
    assert all(np.array_equal(plane, drawn.voxels[0]) for plane in filled.voxels)
    count = 5 * np.count_nonzero(drawn.voxels[0])
    assert filled.notes == (said, "Structure 'LN': slices 3, 5, 7, 9, 11 are filled by interpolation between contoured "
                                  f"slices: {count} voxels.")  # fmt: skip
