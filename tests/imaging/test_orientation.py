"""Turns of arrays: exact, invertible, and as SimpleITK and nibabel name and choose them."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from nibabel.orientations import io_orientation, ornt2axcodes
from scipy.spatial.transform import Rotation

from lnsegfm.errors import ConfigError
from lnsegfm.imaging.axis_code import AXIS_CODES, require_axes
from lnsegfm.imaging.grid import Grid
from lnsegfm.imaging.image_objects import Volume, affine_of
from lnsegfm.imaging.orientation import TURNS, Turn, axis_codes, nearest_turn, turn_to, turned_onto

GRID = Grid((2, 3, 4), (3.0, 2.0, 1.0), (5.0, 6.0, 7.0))
ARRAY = np.arange(24).reshape(GRID.shape)


def rotated(rotation: Rotation) -> Grid:
    return Grid(GRID.shape, GRID.spacing_mm, GRID.origin_mm, tuple(rotation.as_matrix().ravel()))


def placed(array: np.ndarray, grid: Grid) -> dict[tuple[float, ...], int]:
    """Each voxel's value by where it lies in the patient."""
    z, y, x = (axis.ravel() for axis in np.indices(grid.shape))
    steps = np.stack([x, y, z]) * np.array(grid.spacing_mm[::-1])[:, None]
    world = np.array(grid.origin_mm)[:, None] + np.reshape(grid.direction, (3, 3)) @ steps
    return {tuple(point): int(value) for point, value in zip(np.round(world.T, 4) + 0.0, array.ravel(), strict=True)}


def test_there_are_48_codes_and_turns():
    assert len(set(AXIS_CODES)) == len(set(TURNS)) == 48
    assert not Turn()
    assert all(turn for turn in TURNS if turn != Turn())


@pytest.mark.parametrize("axes", AXIS_CODES)
def test_codes_and_turns_are_simpleitks(axes):
    stored = sitk.DICOMOrient(Volume(ARRAY, GRID).to_sitk(), axes)
    array, grid = sitk.GetArrayFromImage(stored), Grid.from_image(stored)

    assert axis_codes(grid) == axes
    turn = turn_to(grid, "LPS")
    np.testing.assert_array_equal(turn.forth(array), ARRAY)
    np.testing.assert_array_equal(turn.back(ARRAY), array)
    assert turn.grid(grid).difference(GRID, 1e-9, 1e-12) is None
    back, own = turned_onto(ARRAY, GRID, grid)
    np.testing.assert_array_equal(back, array)
    assert own.difference(grid, 1e-9, 1e-12) is None


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_moves_no_voxel_in_the_patient_and_goes_back(turn):
    oblique = rotated(Rotation.from_euler("zyx", (10, -20, 15), degrees=True))
    np.testing.assert_equal(placed(turn.forth(ARRAY), turn.grid(oblique)), placed(ARRAY, oblique))
    np.testing.assert_array_equal(turn.back(turn.forth(ARRAY)), ARRAY)
    classes = np.stack([ARRAY, ARRAY + 100])
    np.testing.assert_array_equal(turn.forth(classes)[1], turn.forth(ARRAY) + 100)
    np.testing.assert_array_equal(turn.back(turn.forth(classes)), classes)


def test_nearest_axes_of_oblique_scans_are_those_of_simpleitk_and_nibabel():
    for rotation in Rotation.random(200, random_state=1):
        grid = rotated(rotation)
        codes = axis_codes(grid)
        assert codes == "".join(ornt2axcodes(io_orientation(affine_of(grid))))
        assert codes == sitk.DICOMOrientImageFilter_GetOrientationFromDirectionCosines(grid.direction)
        assert not turn_to(grid, codes)
        for axes in ("RAS", "PIR"):
            theirs = sitk.DICOMOrient(Volume(ARRAY, grid).to_sitk(), axes)
            turn = turn_to(grid, axes)
            np.testing.assert_array_equal(turn.forth(ARRAY), sitk.GetArrayFromImage(theirs))
            assert turn.grid(grid).difference(Grid.from_image(theirs), 1e-9, 1e-9) is None


@pytest.mark.parametrize("angles", [(45, 0, 0), (0, 45, 0), (0, 0, 45), (30, 0, 0), (12, 7, -20)])
@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR"])
def test_how_an_oblique_scan_is_stored_plays_no_part_not_even_where_two_axes_are_equally_near(angles, axes):
    scan = rotated(Rotation.from_euler("zyx", angles, degrees=True))
    expected = turn_to(scan, axes)
    for storage in TURNS:
        array, grid = storage.forth(ARRAY), storage.grid(scan)
        turn = turn_to(grid, axes)
        np.testing.assert_array_equal(turn.forth(array), expected.forth(ARRAY))
        assert turn.grid(grid).difference(expected.grid(scan), 1e-9, 1e-9) is None
        assert nearest_turn(grid, scan.direction).grid(grid).difference(scan, 1e-9, 1e-9) is None


def test_no_code_leaves_an_array_as_it_is_stored():
    assert turn_to(rotated(Rotation.from_euler("x", 90, degrees=True)), None) == Turn()


def test_what_is_no_axis_code_is_refused():
    assert require_axes(" ras ", "--axes") == "RAS"
    for wrong in ("", "RA", "RAX", "RLS", "RASA", "LLL", 3, None, "ras,lps"):
        with pytest.raises(ConfigError, match=r"^--axes .*: not the directions of three axes\. Use "):
            require_axes(wrong, "--axes")
