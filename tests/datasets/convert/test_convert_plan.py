"""The values that a conversion hands on: what they hold exactly, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from lnsegfm.datasets.convert.conversion_plan import (
    ConversionOptions,
    ConversionPlan,
    LoadedScan,
    PlannedScan,
    as_stored_hu,
    count_voxels,
    labels_of,
)
from lnsegfm.errors import DataError
from lnsegfm.imaging.grid import Grid


def scan(name: str) -> PlannedScan:
    return PlannedScan(name, "S", (), lambda: pytest.fail("it is not read"))


@pytest.mark.parametrize(
    ("hu", "dtype"),
    [
        (np.array([-1024, 3071], np.int16), np.int16),
        (np.array([-32768, 32767], np.int32), np.int16),
        (np.array([-32768.0, 32767.0]), np.int16),
        (np.array([0, 32768], np.int32), np.float32),
        (np.array([-32769, 0], np.int64), np.float32),
        (np.array([0.5, 1.0]), np.float32),
        (np.array([np.nan, 1.0]), np.float32),
        (np.array([np.inf, 1.0]), np.float32),
    ],
)
def test_hu_are_whole_numbers_of_16_bits_where_these_hold_them(hu, dtype):
    kept = as_stored_hu(hu)
    assert kept.dtype == dtype
    np.testing.assert_array_equal(kept, hu)


def test_voxels_are_counted_by_value_up_to_the_highest_that_there_can_be():
    mask = np.array([[[0, 1, 1]], [[3, 0, 1]]], np.uint8)
    assert count_voxels(mask, 4).tolist() == [2, 3, 0, 1, 0]


def test_two_cases_of_one_name_and_volumes_off_their_grid_are_refused():
    labels = labels_of(("LN=node",))
    assert ConversionPlan(labels, (scan("a"), scan("b"))).channels == ("CT",)
    with pytest.raises(DataError, match="Cases a: they are there more than once"):
        ConversionPlan(labels, (scan("a"), scan("b"), scan("a")))
    grid = Grid((2, 3, 4), (1.0, 1.0, 1.0))
    whole, part = np.zeros((2, 3, 4), np.int16), np.zeros((2, 3, 3), np.uint8)
    for images, mask in (((whole, part), None), ((whole,), part)):
        with pytest.raises(DataError, match=r"\(2, 3, 3\) voxels on a grid of \(2, 3, 4\)"):
            LoadedScan(images, grid, mask)


def test_the_options_that_change_a_case_are_its_identity():
    plain = ConversionOptions(roi=("LN=node",)).identity()
    for other in (
        {"roi": ("LN=gland",)},
        {"roi": ("LN=node",), "part": "test"},
        {"roi": ("LN=node",), "channels": "both"},
        {"roi": ("LN=node",), "shell_mm": 2.0},
        {"roi": ("LN=node",), "keep_names": True},
        {"roi": ("LN=node",), "straighten": True},
    ):
        assert ConversionOptions(**other).identity() != plain
    assert ConversionOptions(roi=("LN=node",), unlabelled=True).identity() == plain  # scans are added; none is another
    assert ConversionOptions(roi=("LN=node",), unlabelled=True).changed() == {"roi", "unlabelled"}
