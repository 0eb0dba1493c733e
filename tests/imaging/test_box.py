from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lnsegfm.errors import DataError
from lnsegfm.imaging.box import bounding_box


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
