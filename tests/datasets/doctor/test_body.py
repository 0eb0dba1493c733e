"""Where the patient ends: the skin, and a margin of two coarse voxels around it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from lnsegfm.datasets.doctor.body import find_body

from .scenes import GRID


def block() -> np.ndarray:
    """A block of soft tissue, columns 20 to 43, with a lung in it."""
    hu = np.full(GRID.shape, -1000, np.int16)
    hu[:, 20:44, 20:44] = 40
    hu[10:20, 28:36, 28:36] = -850
    return hu


@pytest.mark.parametrize(("column", "outside"), [(43, 0), (44, 0), (45, 0), (46, 1), (18, 0), (17, 1), (30, 0)])
def test_two_voxels_from_the_skin_are_inside_and_three_are_not(column, outside):
    mask = np.zeros(GRID.shape, np.uint8)
    mask[15, 32, column] = 1
    body = find_body(block(), GRID)
    assert body is not None
    assert body.outside(mask) == ({1: 1} if outside else {})


def test_a_fine_scan_is_looked_at_in_coarse_voxels_and_counted_in_its_own():
    fine = dataclasses.replace(GRID, spacing_mm=(3.0, 1.0, 1.0))
    body = find_body(block(), fine)
    assert body is not None
    assert body.step == (1, 2, 2)
    mask = np.zeros(GRID.shape, np.uint8)
    mask[15, 32, 43:54], mask[3, :2, :3] = 1, 2
    assert body.outside(mask) == {1: 6, 2: 6}  # the margin ends with column 47


def test_in_air_there_is_no_patient():
    assert find_body(np.full(GRID.shape, -1000, np.int16), GRID) is None
