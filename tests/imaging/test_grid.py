from __future__ import annotations

import dataclasses

import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid

GRID = Grid((20, 30, 40), (3.0, 0.9, 0.8), (-100.0, -90.0, 12.5))


def test_takes_the_geometry_of_an_image_in_array_order():
    image = sitk.Image([40, 30, 20], sitk.sitkInt16)
    image.SetSpacing((0.8, 0.9, 3.0))
    image.SetOrigin((-100.0, -90.0, 12.5))

    assert Grid.from_image(image) == GRID
    assert Grid.from_image(image).shape == sitk.GetArrayFromImage(image).shape


def test_volume_of_a_voxel():
    assert GRID.voxel_volume_ml == pytest.approx(3.0 * 0.9 * 0.8 / 1000)


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"shape": (20, 30, 41)}, "shape 20x30x40 against 20x30x41 voxels"),
        ({"spacing_mm": (3.0, 0.9, 0.9)}, "spacing (3, 0.9, 0.8) against (3, 0.9, 0.9) mm (z, y, x; by 0.1 mm)"),
        (
            {"origin_mm": (-100.0, -88.0, 12.5)},
            "origin (-100, -90, 12.5) against (-100, -88, 12.5) mm (x, y, z; by 2 mm)",
        ),
        ({"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}, "direction (1, 0, 0, 0, 1, 0, 0, 0, 1) against (-1, 0, 0"),
    ],
)
def test_says_what_differs_with_both_values(change, phrase):
    said = GRID.difference(dataclasses.replace(GRID, **change))

    assert said is not None
    assert said.startswith(phrase)


def test_names_the_first_difference_only():
    other = dataclasses.replace(GRID, spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0))

    assert "spacing" in str(GRID.difference(other))
    assert "origin" not in str(GRID.difference(other))


def test_rounding_of_a_header_is_no_difference():
    assert GRID.difference(dataclasses.replace(GRID, origin_mm=(-100.0004, -90.0, 12.5))) is None
    assert GRID.difference(dataclasses.replace(GRID, origin_mm=(-100.0, -90.0, 12.502))) is not None


@given(
    st.tuples(*[st.integers(1, 600)] * 3),
    st.tuples(*[st.floats(0.1, 10)] * 3),
    st.tuples(*[st.floats(-1e3, 1e3)] * 3),
)
def test_a_grid_does_not_differ_from_itself(shape, spacing_mm, origin_mm):
    grid = Grid(shape, spacing_mm, origin_mm)

    assert grid.difference(Grid(shape, spacing_mm, origin_mm)) is None


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"shape": (30, 40)}, "three axes"),
        ({"shape": (0, 30, 40)}, "three axes"),
        ({"spacing_mm": (3.0, 0.0, 0.8)}, "positive number"),
        ({"spacing_mm": (3.0, float("nan"), 0.8)}, "positive number"),
        ({"origin_mm": (float("inf"), 0.0, 0.0)}, "finite"),
        ({"direction": (1, 0, 0, 0.2, 1, 0, 0, 0, 1)}, "right angles"),
        ({"direction": (1, 0, 0)}, "right angles"),
    ],
)
def test_refuses_what_is_no_geometry(bad, said):
    with pytest.raises(DataError, match=said):
        dataclasses.replace(GRID, **bad)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize(("share", "same"), [(0.09, True), (-0.09, True), (0.11, False), (-0.5, False)])
def test_voxels_are_the_same_up_to_a_share_of_a_voxel(axis, share, same):
    spacing = (5.0, 0.5, 0.8)
    origin = [1.0, 2.0, 3.0]
    origin[axis] += share * spacing[::-1][axis]

    assert Grid((4, 5, 6), spacing, (1.0, 2.0, 3.0)).same_voxels(Grid((4, 5, 6), spacing, tuple(origin))) is same


def test_a_small_difference_of_spacing_counts_by_what_it_makes_at_the_far_end():
    grid = Grid((10, 100, 400), (1.0, 1.0, 1.0))

    assert grid.same_voxels(Grid((10, 100, 400), (1.0, 1.0, 1.0002)))
    assert not grid.same_voxels(Grid((10, 100, 400), (1.0, 1.0, 1.0005)))
    assert not grid.same_voxels(Grid((10, 100, 401), (1.0, 1.0, 1.0)))
