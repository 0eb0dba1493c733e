from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lnsegfm.errors import DataError
from lnsegfm.imaging.box import bounding_box, crop_grid
from lnsegfm.imaging.grid import Grid

C, S = np.cos(0.3), np.sin(0.3)
OBLIQUE = Grid((9, 10, 11), (3.0, 0.9, 1.1), (-70.0, 25.0, 1200.0), (C, 0, S, 0, -1, 0, S, 0, -C))


@given(st.data(), array_shapes(min_dims=3, max_dims=3, max_side=6))
def test_box_is_the_extent_of_the_true_voxels(data, shape):
    mask = data.draw(arrays(np.bool_, shape, elements=st.booleans(), fill=st.just(False)))

    box = bounding_box(mask)

    if box is None:
        assert not mask.any()
        return
    voxels = np.argwhere(mask)
    assert [(part.start, part.stop) for part in box] == list(
        zip(voxels.min(axis=0), voxels.max(axis=0) + 1, strict=True)
    )


def test_box_of_a_view_whose_axes_are_swapped():
    mask = np.zeros((4, 5, 6), dtype=bool)
    mask[1:3, 2, 4:] = True

    assert bounding_box(mask.transpose(2, 0, 1)[::-1]) == (slice(0, 2), slice(1, 3), slice(2, 3))


@pytest.mark.parametrize("mask", [np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2), bool)])
def test_only_boolean_volumes_have_a_box(mask):
    with pytest.raises(DataError, match=r"^Mask of .*: not a boolean volume\. Pass mask == label\.$"):
        bounding_box(mask)


def test_every_voxel_of_a_crop_stays_where_it_is():
    image = sitk.Image(11, 10, 9, sitk.sitkUInt8)
    image.SetSpacing((1.1, 0.9, 3.0))
    image.SetOrigin(OBLIQUE.origin_mm)
    image.SetDirection(OBLIQUE.direction)

    small = crop_grid(OBLIQUE, (slice(2, 5), slice(3, 10), slice(1, 7)))

    assert small.difference(Grid.from_image(image[1:7, 3:10, 2:5]), tolerance_mm=1e-9, direction_tolerance=0) is None
    assert crop_grid(OBLIQUE, (slice(None), slice(0, 10), slice(None, 11))) == OBLIQUE


@pytest.mark.parametrize("part", [slice(0, 12), slice(-1, 3), slice(4, 4), slice(0, 4, 2)])
def test_a_box_outside_is_refused(part):
    with pytest.raises(DataError, match="not inside a volume"):
        crop_grid(OBLIQUE, (slice(0, 2), slice(0, 2), part))
