"""Resampling beside nnU-Net's own functions, over drawn shapes and spacings."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape as stock
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.nnunet.fast_resampling import resample_data_or_seg_to_shape as seam
from lnsegfm.nnunet.fast_resampling import with_fast_resampling
from lnsegfm.transforms.resampling.axis_weights import ROWS
from lnsegfm.transforms.resampling.resample_blockwise import ResamplingRule, resampled_slabs
from lnsegfm.transforms.resampling.resample_images import resample_image, resample_labels
from tests.scenes import small_plans

ONE_MM = (1.0, 1.0, 1.0)
SPACINGS_MM = st.tuples(*(st.sampled_from((0.7, 1.0, 1.0, 5.0)) for _ in range(3)))
LENGTH = st.integers(1, 12)
LINEAR = ResamplingRule(order=1)
MEMORY = st.sampled_from((1, 4000, 2**28))
"""One slice a slab, a few, and all at once."""


@st.composite
def grids(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], Any, Any]:
    """Shapes and spacings before and after; often doubled or with an axis left alone, where ties and copies are."""
    shape = draw(st.tuples(LENGTH, LENGTH, LENGTH))
    new = tuple(draw(st.sampled_from((n, 2 * n, 3 * n, draw(st.integers(1, 20))))) for n in shape)
    return shape, new, draw(SPACINGS_MM), draw(SPACINGS_MM)


def stocks(data: np.ndarray, *where: Any, **how: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return stock(data, *where, **({"order_z": 0, "force_separate_z": None} | how))


@settings(max_examples=60, deadline=None)
@given(grids(), MEMORY, st.integers(1, 2), st.integers(0, 2**32 - 1))
def test_images_are_nnunets(grid: Any, max_bytes: int, channels: int, seed: int) -> None:
    shape, new, *spacings = grid
    data = np.random.default_rng(seed).normal(-300, 200, (channels, *shape)).astype(np.float32)
    made = resample_image(data, new, *spacings, max_bytes=max_bytes)
    expected = stocks(data, new, *spacings, order=3)
    assert made.dtype == expected.dtype
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5 * max(np.ptp(data), 100.0))


@settings(max_examples=60, deadline=None)
@given(grids(), MEMORY, st.integers(1, 6), st.integers(0, 2**32 - 1), st.sampled_from((np.int8, np.int16, np.float32)))
def test_labels_are_nnunets_voxel_for_voxel(grid: Any, max_bytes: int, labels: int, seed: int, kind: type) -> None:
    shape, new, *spacings = grid
    data = np.random.default_rng(seed).integers(-1, labels, (2, *shape)).astype(kind)
    made = resample_labels(data, new, *spacings, max_bytes=max_bytes)
    expected = stocks(data, new, *spacings, is_seg=True, order=1)
    assert made.dtype == expected.dtype
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("factor", [2, 3, 5])
@pytest.mark.parametrize("shape", [(1, 4, 2), (2, 5, 4), (8, 8, 8)])
def test_ties_at_a_volume_s_faces_fall_as_nnunets(shape: tuple[int, int, int], factor: int) -> None:
    new, spacing = tuple(factor * n for n in shape), (0.7, 0.7, 0.7)
    data = np.random.default_rng(0).integers(-1, 4, (12, *shape)).astype(np.int8)
    expected = stocks(data, new, spacing, spacing, is_seg=True, order=1)
    np.testing.assert_array_equal(resample_labels(data, new, spacing, spacing), expected)


@settings(max_examples=40, deadline=None)
@given(grids(), MEMORY, st.integers(1, 5), st.integers(0, 2**32 - 1), st.sampled_from((np.float16, np.float32)))
def test_logits_are_nnunets(grid: Any, max_bytes: int, labels: int, seed: int, kind: type) -> None:
    shape, new, *spacings = grid
    data = np.random.default_rng(seed).normal(0, 4, (labels, *shape)).astype(kind)
    made = resample_image(data, new, *spacings, max_bytes=max_bytes, rule=LINEAR)
    expected = stocks(data, new, *spacings, order=1)
    assert made.dtype == expected.dtype
    # half precision: a value that lies between two goes to either
    np.testing.assert_allclose(made, expected, rtol=1.1 * np.finfo(kind).eps, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order_z", [0, 1, 3])
def test_slices_apart_along_any_axis_and_order(axis: int, order_z: int) -> None:
    spacing = tuple(6.0 if a == axis else 1.0 for a in range(3))
    data = np.random.default_rng(0).normal(size=(1, 7, 8, 9)).astype(np.float32)
    rule = ResamplingRule(order=3, order_z=order_z)
    assert rule.apart(spacing, ONE_MM) == axis
    made = resample_image(data, (11, 6, 14), spacing, ONE_MM, rule=rule)
    expected = stocks(data, (11, 6, 14), spacing, ONE_MM, order=3, order_z=order_z)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("forced", [True, False])
def test_slices_apart_when_the_plans_say_so(forced: bool) -> None:
    spacing = (2.0, 1.0, 1.0) if forced else (9.0, 1.0, 1.0)
    data = np.random.default_rng(0).normal(size=(1, 5, 8, 9)).astype(np.float32)
    made = resample_image(data, (8, 8, 12), spacing, ONE_MM, rule=ResamplingRule(3, 0, forced))
    expected = stocks(data, (8, 8, 12), spacing, ONE_MM, order=3, force_separate_z=forced)
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


def test_axes_longer_than_a_block() -> None:
    data = np.random.default_rng(0).normal(size=(1, 4, 3 * ROWS - 5, 2 * ROWS + 1)).astype(np.float32)
    new = (5, 2 * ROWS + 3, 3 * ROWS + 7)
    expected = stocks(data, new, ONE_MM, ONE_MM, order=3)
    np.testing.assert_allclose(resample_image(data, new, ONE_MM, ONE_MM), expected, rtol=0, atol=1e-5)
    labels = (data > 0.3).astype(np.int8) + (data > 1)
    expected = stocks(labels, new, ONE_MM, ONE_MM, is_seg=True, order=1)
    np.testing.assert_array_equal(resample_labels(labels, new, ONE_MM, ONE_MM), expected)


def test_ties_go_to_the_nearest_label_if_it_is_tied_else_to_the_smallest() -> None:
    def middle(*corners: int) -> int:
        labels = np.array(corners, dtype=np.int8).reshape(1, 2, 2, 2)
        made = resample_labels(labels, (1, 1, 1), ONE_MM, ONE_MM)
        assert made == stocks(labels, (1, 1, 1), ONE_MM, ONE_MM, is_seg=True, order=1)
        return int(made[0, 0, 0, 0])

    assert middle(3, 1, 1, 1, 2, 2, 2, 3) == 1
    assert middle(1, 1, 1, 1, 2, 2, 2, 2) == 2
    assert middle(2, 2, 2, 2, 1, 1, 1, 1) == 1


def test_the_cubic_overshoot_is_clipped_to_the_volume_or_to_each_slice() -> None:
    data = np.zeros((1, 2, 6, 6), dtype=np.float32)
    data[0, 0, 2:4, 2:4], data[0, 1] = 1.0, 5 * np.eye(6)
    whole, sliced = (resample_image(data, (3, 17, 17), s, ONE_MM) for s in (ONE_MM, (9.0, 1.0, 1.0)))
    assert (whole.min(), whole.max()) == (0.0, 5.0)
    assert sliced[0, 0].max() == 1.0


def test_the_same_shape_gives_the_same_array_and_tensors_give_tensors() -> None:
    data = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    assert resample_image(data, (4, 5, 6), ONE_MM, (2.0, 1.0, 1.0)) is data
    made = resample_image(torch.from_numpy(data), (5, 5, 5), ONE_MM, ONE_MM)
    np.testing.assert_array_equal(made.numpy(), resample_image(data, (5, 5, 5), ONE_MM, ONE_MM))
    labels = torch.from_numpy((data > 0).astype(np.uint8))
    assert resample_labels(labels, (5, 5, 5), ONE_MM, ONE_MM).dtype == torch.uint8


def test_arrays_of_any_layout_and_precision_are_taken() -> None:
    data = np.random.default_rng(0).normal(size=(1, 4, 5, 6))
    expected = resample_image(data.astype(np.float32), (7, 4, 9), ONE_MM, ONE_MM)
    mapped = data.astype(np.float32)
    mapped.setflags(write=False)
    flipped = np.ascontiguousarray(data[:, ::-1])[:, ::-1].astype(">f4")
    for other in (mapped, flipped, np.asfortranarray(data)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = resample_image(other, (7, 4, 9), ONE_MM, ONE_MM)
        np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        resample_image(data, (7, 4, 9), ONE_MM, ONE_MM), stocks(data, (7, 4, 9), ONE_MM, ONE_MM), atol=1e-12
    )


def test_the_users_precision_settings_neither_matter_nor_change() -> None:
    data = np.random.default_rng(0).normal(size=(1, 40, 40, 40)).astype(np.float32)
    expected = resample_image(data, (50, 50, 50), ONE_MM, ONE_MM)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            made = resample_image(data, (50, 50, 50), ONE_MM, ONE_MM)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(made, expected)


def test_less_memory_means_smaller_slabs() -> None:
    data = torch.randn(2, 20, 30, 30).half()
    sizes = {}
    for max_bytes in (1, 200_000, 2**28):
        slabs = [
            slab for _, slab in resampled_slabs(data, (60, 40, 40), ONE_MM, ONE_MM, max_bytes=max_bytes, rule=LINEAR)
        ]
        sizes[max_bytes] = max(slab.shape[1] for slab in slabs)
        assert sum(slab.shape[1] for slab in slabs) == 60
    assert sizes[1] == 1 < sizes[200_000] < sizes[2**28]


@pytest.mark.parametrize(
    ("data", "new_shape", "error"),
    [
        (np.zeros((4, 5, 6), dtype=np.float32), (4, 5, 6), DataError),
        (np.zeros((1, 0, 5, 6), dtype=np.float32), (4, 5, 6), DataError),
        (np.zeros((1, 4, 5, 6), dtype=np.int16), (4, 5, 7), DataError),
        (np.full((1, 4, 5, 6), np.nan, dtype=np.float32), (4, 5, 7), DataError),
        (np.full((1, 4, 5, 6), np.inf, dtype=np.float32), (4, 5, 7), DataError),
        (np.zeros((1, 4, 5, 6), dtype=np.float32), (4, 0, 7), ConfigError),
        (np.zeros((1, 4, 5, 6), dtype=np.float32), (4, 5), ConfigError),
    ],
)
def test_what_cannot_be_resampled_is_refused(data: np.ndarray, new_shape: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        resample_image(data, new_shape, ONE_MM, ONE_MM)


def test_orders_that_are_not_known_are_refused() -> None:
    with pytest.raises(ConfigError, match="order 7"):
        ResamplingRule(order=7)
    with pytest.raises(ConfigError, match="Orders 3 and 0"):
        resample_labels(np.zeros((1, 2, 2, 2), dtype=np.int8), (3, 3, 3), ONE_MM, ONE_MM, rule=ResamplingRule(3))


def test_the_seam_has_nnunets_defaults_and_leaves_to_nnunet_what_is_its_own() -> None:
    data = np.random.default_rng(0).normal(100, 50, (1, 4, 5, 6))
    where = ((6, 4, 9), (9.0, 1.0, 1.0), ONE_MM)  # by default nothing is apart
    np.testing.assert_allclose(seam(torch.from_numpy(data), *where), stock(data, *where), atol=1e-9)
    integers = data.astype(np.int16)
    np.testing.assert_array_equal(seam(integers, *where), stock(integers, *where))
    for order in (0, 3):
        how = {"is_seg": True, "order": order}
        np.testing.assert_array_equal(seam(integers // 40, *where, **how), stock(integers // 40, *where, **how))


def test_a_configuration_resamples_fast_and_its_plans_stay() -> None:
    plans = small_plans()
    configuration = PlansManager(plans).get_configuration("3d_fullres")
    fast = with_fast_resampling(configuration, max_bytes=4000)
    assert fast.configuration == configuration.configuration
    data = np.random.default_rng(0).normal(size=(2, 5, 8, 9)).astype(np.float32)
    where = ((7, 11, 9), (5.0, 1.0, 1.0), (4.0, 0.8, 1.0))
    for name in ("resampling_fn_data", "resampling_fn_probabilities"):
        assert getattr(fast, name).func is seam
        np.testing.assert_allclose(
            getattr(fast, name)(data, *where), getattr(configuration, name)(data, *where), atol=1e-5
        )
    labels = (data > 0.5).astype(np.int8)
    np.testing.assert_array_equal(
        fast.resampling_fn_seg(labels, *where), configuration.resampling_fn_seg(labels, *where)
    )
    other = PlansManager(plans).get_configuration("3d_fullres")
    other.configuration["resampling_fn_data"] = "no_resampling_hack"
    other.configuration["resampling_fn_data_kwargs"] = {}
    assert with_fast_resampling(other).resampling_fn_data.func is not seam
