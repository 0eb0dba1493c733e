from __future__ import annotations

import math

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis.extra.numpy import arrays

from lnsegfm.errors import DataError
from lnsegfm.evaluation.overlap import dice, volume_ml
from lnsegfm.imaging.grid import Grid

SHAPE = (3, 4, 5)
masks = arrays(np.bool_, SHAPE)


def box(shape: tuple[int, int, int], low: tuple[int, int, int], high: tuple[int, int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def ball(radius_mm: float, centre_mm: tuple[float, float, float], grid: Grid) -> np.ndarray:
    axes = (np.arange(n) * s - c for n, s, c in zip(grid.shape, grid.spacing_mm, centre_mm, strict=True))
    return sum(a**2 for a in np.meshgrid(*axes, indexing="ij")) <= radius_mm**2


@given(masks, masks)
def test_agrees_with_simpleitk(one, other):
    if not one.any() or not other.any():
        return
    filter_ = sitk.LabelOverlapMeasuresImageFilter()
    filter_.Execute(*(sitk.GetImageFromArray(m.astype(np.uint8)) for m in (one, other)))

    assert dice(one, other) == pytest.approx(filter_.GetDiceCoefficient(), abs=1e-12)


@given(masks, masks)
def test_is_symmetric_and_between_0_and_1(one, other):
    value = dice(one, other)

    assert math.isnan(value) or 0 <= value <= 1
    assert value == pytest.approx(dice(other, one), nan_ok=True)


@given(masks)
def test_of_a_mask_with_itself_is_1_and_with_its_complement_0(mask):
    assert math.isnan(dice(mask, mask)) if not mask.any() else dice(mask, mask) == 1.0
    assert dice(mask, ~mask) == 0.0


@given(masks, masks, masks)
def test_voxels_that_do_not_count_change_nothing(one, other, valid):
    scrambled = np.where(valid, one, ~one)

    assert dice(one, other, valid) == pytest.approx(dice(scrambled, other, valid), nan_ok=True)
    assert dice(one, other, valid) == pytest.approx(dice(one[valid], other[valid]), nan_ok=True)


def test_shifted_boxes():
    one, other = box((20, 20, 20), (2, 2, 2), (12, 12, 12)), box((20, 20, 20), (4, 2, 2), (14, 12, 12))

    assert dice(one, other) == 2 * 800 / 2000


def test_shifted_balls_approach_the_analytic_overlap():
    grid = Grid((90, 120, 120), (0.4, 0.3, 0.3))
    radius, shift = 12.0, 6.0
    centre = (18.0, 18.0, 15.0)
    shifted = (centre[0], centre[1], centre[2] + shift)

    # the lens of two balls of one radius R at distance d has the volume pi (4 R + d) (2 R - d)^2 / 12
    lens = math.pi * (4 * radius + shift) * (2 * radius - shift) ** 2 / 12
    whole = 4 / 3 * math.pi * radius**3
    assert dice(ball(radius, centre, grid), ball(radius, shifted, grid)) == pytest.approx(lens / whole, abs=2e-3)
    assert volume_ml(ball(radius, centre, grid), grid) == pytest.approx(whole / 1000, rel=2e-3)


def test_empty_masks():
    empty, full = np.zeros(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool)

    assert math.isnan(dice(empty, empty))
    assert dice(empty, full) == 0.0
    assert dice(full, empty) == 0.0


def test_counts_do_not_overflow():
    huge = np.ones((300, 300, 300), dtype=bool)

    assert dice(huge, huge) == 1.0


def test_volume_counts_valid_voxels():
    grid = Grid((10, 10, 10), (5.0, 2.0, 1.0))
    mask = box(grid.shape, (0, 0, 0), (10, 10, 10))

    assert volume_ml(mask, grid) == pytest.approx(10.0)
    assert volume_ml(mask, grid, box(grid.shape, (0, 0, 0), (1, 10, 10))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("one", "other", "valid", "said"),
    [
        (np.ones(SHAPE, dtype=np.uint8), np.ones(SHAPE, dtype=bool), None, "boolean"),
        (np.ones(SHAPE, dtype=bool), np.ones(SHAPE, dtype=float), None, "boolean"),
        (np.ones(SHAPE, dtype=bool), np.ones((3, 4, 1), dtype=bool), None, "one grid"),
        (np.ones(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool), np.ones((1, 1, 5), dtype=bool), "Valid voxels"),
    ],
)
def test_refuses_what_numpy_would_broadcast_or_cast(one, other, valid, said):
    with pytest.raises(DataError, match=said):
        dice(one, other, valid)
