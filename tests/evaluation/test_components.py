from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.evaluation.components import CONNECTIVITIES, components

STEPS = {6: 1, 18: 2, 26: 3}  # ndimage counts the axes along which neighbours may differ
MASKS = arrays(bool, st.tuples(*[st.integers(1, 7)] * 3), elements=st.booleans(), fill=st.just(False))


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
@given(mask=MASKS)
def test_pieces_are_those_of_an_independent_implementation(connectivity, mask):
    theirs, count = ndimage.label(mask, ndimage.generate_binary_structure(3, STEPS[connectivity]))

    found = components(mask, connectivity)

    labels = found.labels()
    assert len(found) == count == labels.max(initial=0)
    assert len({*zip(theirs[mask].tolist(), labels[mask].tolist(), strict=True)}) == count
    assert not labels[~mask].any()


@given(mask=MASKS)
def test_what_is_said_of_a_piece_is_what_its_labels_say(mask):
    found = components(mask)
    labels = found.labels()

    boxes = ndimage.find_objects(labels)
    assert found.boxes == tuple(boxes)
    for number in range(1, len(found) + 1):
        box, piece = found.cut(number)
        assert np.array_equal(labels[box] == number, piece)
        assert found.sizes[number - 1] == np.count_nonzero(labels == number)
        assert np.array_equal(found.voxels_of(number), np.flatnonzero(labels == number))
    assert np.array_equal(found.ids_at(np.arange(mask.size)), labels.ravel())
    assert list(found.sizes) == sorted(found.sizes, reverse=True)


def test_equal_pieces_are_numbered_in_the_order_of_the_file():
    mask = np.zeros((3, 3, 9), bool)
    mask[0, 0, 0] = mask[0, 0, 4] = mask[2, 2, 7:9] = True

    assert components(mask).labels()[mask].tolist() == [2, 3, 1, 1]


@pytest.mark.parametrize("connectivity", CONNECTIVITIES)
def test_the_end_of_a_row_does_not_touch_the_start_of_the_next(connectivity):
    mask = np.zeros((3, 3, 4), bool)
    mask[0, 0, 3] = mask[0, 1, 0] = mask[1, 2, 3] = mask[2, 0, 0] = True

    assert components(mask, connectivity).sizes == (1, 1, 1, 1)


def test_empty_and_full_masks():
    assert len(components(np.zeros((2, 3, 4), bool))) == 0
    assert components(np.zeros((2, 3, 4), bool)).ids_at(np.array([3])).tolist() == [0]
    assert components(np.ones((2, 3, 4), bool)).sizes == (24,)


def test_an_array_in_another_memory_order_is_the_same_mask():
    mask = np.random.default_rng(0).random((5, 6, 7)) < 0.3

    for other in (np.asfortranarray(mask), np.flip(np.flip(mask, 1).copy(), 1)):
        assert np.array_equal(components(other).labels(), components(mask).labels())


def test_what_is_no_mask_is_refused():
    with pytest.raises(ConfigError, match=r"^Connectivity 8: "):
        components(np.ones((2, 2, 2), bool), 8)
    with pytest.raises(ConfigError, match=r"^Connectivity 8: "):
        components(np.zeros((2, 2, 2), bool), 8)
    with pytest.raises(DataError, match="not a boolean mask"):
        components(np.ones((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match="not a boolean mask"):
        components(np.ones((2, 2), bool))
