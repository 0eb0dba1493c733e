"""Laws of mirror images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lnsegfm.imaging.dicom.mirrored import mirrored_axis

SHAPE = (12, 20, 24)


def node(z: int, y: int, x: int) -> np.ndarray:
    """An asymmetric node far from the middle of every axis."""
    mask = np.zeros(SHAPE, bool)
    mask[z : z + 3, y : y + 5, x : x + 6] = True
    mask[z, y, x : x + 3] = False
    return mask


@pytest.mark.parametrize("axis", [0, 1, 2])
@given(st.integers(0, 2), st.integers(0, 4), st.integers(0, 5))
@settings(max_examples=20, deadline=None)
def test_a_flip_is_found_on_its_axis(axis, z, y, x):
    mask = node(z, y, x)
    found = mirrored_axis(np.flip(mask, axis), mask)
    assert found is not None
    assert (found.axis, found.mirrored_dice, found.dice) == (axis, 1.0, 0.0)


@given(st.integers(0, 9), st.integers(0, 15), st.integers(0, 18))
@settings(max_examples=30, deadline=None)
def test_what_is_as_it_should_be_is_not_mirrored(z, y, x):
    assert mirrored_axis(node(z, y, x), node(z, y, x)) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_corrected_mask_that_was_flipped_is_found(axis):
    mask, corrected = node(1, 2, 3), node(1, 2, 3)
    corrected[1:5, 3:9, 4:10] = True
    found = mirrored_axis(np.flip(corrected, axis), mask)
    assert found is not None
    assert found.axis == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_drawn_part_alone_may_be_reversed(axis):
    """A tail on one side: reversed within its own box, it lies on the other."""
    mask = np.zeros(SHAPE, bool)
    mask[1:9, 2:14, 3:15] = True
    half = [slice(1, 9), slice(2, 14), slice(3, 15)]
    half[axis] = slice(half[axis].start + 3, half[axis].stop - 1)
    others = [slice(None)] * 3
    keep = mask.copy()
    keep[tuple(half)] = False
    others[axis] = slice(half[axis].stop, None)
    keep[tuple(others)] &= np.indices(SHAPE).sum(axis=0)[tuple(others)] % 3 == 0
    first, last = (int(k) for k in np.flatnonzero(keep.any(tuple(a for a in range(3) if a != axis)))[[0, -1]])
    within = [slice(None)] * 3
    within[axis] = slice(first, last + 1)
    turned = np.zeros_like(keep)
    turned[tuple(within)] = np.flip(keep[tuple(within)], axis)
    found = mirrored_axis(turned, keep)
    assert found is not None
    assert found.axis == axis


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_what_is_symmetric_is_not_mirrored(axis):
    mask = np.zeros(SHAPE, bool)
    mask[4:8, 6:14, 8:16] = True
    assert mirrored_axis(np.flip(mask, axis), mask) is None


def test_a_few_voxels_say_nothing():
    mask = np.zeros(SHAPE, bool)
    mask[1, 2, 3:9] = True
    assert mirrored_axis(np.flip(mask, 0), mask) is None


def test_two_nodes_in_different_places_are_no_mirror_images():
    assert mirrored_axis(node(1, 2, 3), node(5, 9, 14)) is None
    assert mirrored_axis(node(1, 2, 3), np.zeros(SHAPE, bool)) is None


def test_an_axis_that_is_not_asked_for_is_not_looked_at():
    assert mirrored_axis(np.flip(node(1, 2, 3), 2), node(1, 2, 3), axes=(0, 1)) is None
