"""Masks and probabilities made slab by slab are nnU-Net's."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.inference.logits_to_mask import (
    InversePreprocessing,
    is_default,
    mask_from_logits,
    probabilities_from_logits,
)
from lnsegfm.transforms.resampling.anisotropy import separate_axis

SETTINGS = {
    "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
    "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None},
}
FEW = settings(max_examples=25, deadline=None, derandomize=True)
pytestmark = pytest.mark.usefixtures("one_thread")


def case(shape, spacing, here, *, before=None, low=(0, 0, 0), forward=(0, 1, 2), **changed) -> tuple[Any, Any, dict]:
    """What nnU-Net knows of a case: plans, configuration and properties."""
    kwargs = SETTINGS["resampling_fn_probabilities_kwargs"] | changed
    configuration = SimpleNamespace(
        spacing=list(spacing),
        configuration=SETTINGS | {"resampling_fn_probabilities_kwargs": kwargs},
        resampling_fn_probabilities=partial(resample_data_or_seg_to_shape, **kwargs),
    )
    backward = [int(axis) for axis in np.argsort(forward)]
    plans = SimpleNamespace(transpose_forward=list(forward), transpose_backward=backward)
    properties = {
        "spacing": [here[axis] for axis in backward],
        "shape_after_cropping_and_before_resampling": tuple(shape),
        "shape_before_cropping": tuple(before or shape),
        "bbox_used_for_cropping": [[a, a + n] for a, n in zip(low, shape, strict=True)],
    }
    return plans, configuration, properties


def stock(logits, plans, configuration, properties, *, probabilities=False):
    labels = LabelManager({"background": 0} | {f"l{n}": n for n in range(1, len(logits))}, None)
    return convert_predicted_logits_to_segmentation_with_correct_shape(
        logits.clone(), plans, configuration, labels, properties, probabilities, num_threads_torch=1
    )


SIZES = st.tuples(*[st.integers(2, 9)] * 3)
SPACINGS = st.tuples(*[st.sampled_from([0.7, 1.0, 1.5, 3.0, 5.0])] * 3)


@FEW
@given(st.data())
def test_masks_are_nnunets(data):
    small, shape, low, above = (data.draw(s) for s in (SIZES, SIZES, st.tuples(*[st.integers(0, 2)] * 3), SIZES))
    spacing, here = data.draw(SPACINGS), data.draw(SPACINGS)
    forward = data.draw(st.permutations(range(3)))
    classes, kind = data.draw(st.sampled_from([2, 3, 5])), data.draw(st.sampled_from([torch.float32, torch.float16]))
    torch.manual_seed(data.draw(st.integers(0, 99)))
    logits = (5 * torch.randn(classes, *small)).to(kind)
    before = tuple(a + n + b for a, n, b in zip(low, shape, above, strict=True))
    world = case(shape, spacing, here, before=before, low=low, forward=forward)
    limit = data.draw(st.sampled_from([1, 4000, 2**26]))

    way = InversePreprocessing.read(*world)
    expected = stock(logits, *world)

    exact = mask_from_logits(logits, way, limit_bytes=limit, rounded=True)
    assert exact.dtype == expected.dtype
    np.testing.assert_array_equal(exact, expected)
    ours = mask_from_logits(logits, way, limit_bytes=limit)
    apart = np.flatnonzero(ours != expected)
    assert kind == torch.float16 or apart.size == 0
    if apart.size:  # only where half precision makes nnU-Net's two best logits tie
        rounded = world[1].resampling_fn_probabilities(logits.numpy(), shape, spacing, here)
        top = np.sort(rounded.astype(np.float64), axis=0)[-2:]
        tied = np.zeros(before, dtype=bool)
        tied[tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))] = top[0] == top[1]
        assert tied.transpose(way.backward).flat[apart].all()


@FEW
@given(st.data())
def test_probabilities_are_nnunets(data):
    small, shape, spacing, here = (data.draw(s) for s in (SIZES, SIZES, SPACINGS, SPACINGS))
    forward = data.draw(st.permutations(range(3)))
    logits = 5 * torch.randn(data.draw(st.sampled_from([2, 4])), *small)
    world = case(shape, spacing, here, before=[n + 1 for n in shape], low=(1, 0, 1), forward=forward)

    way = InversePreprocessing.read(*world)
    expected = stock(logits, *world, probabilities=True)[1]

    np.testing.assert_allclose(probabilities_from_logits(logits, way, limit_bytes=2000), expected, atol=1e-6)
    if len(logits) == 2:
        difference = (logits[1] - logits[0])[None]
        np.testing.assert_allclose(probabilities_from_logits(difference, way), expected, atol=1e-5)
        np.testing.assert_array_equal(mask_from_logits(difference, way), mask_from_logits(logits, way))


@given(SPACINGS, SPACINGS, st.sampled_from([None, True, False]))
def test_the_coarse_axis_is_nnunets(current, new, force):
    separate, axis = determine_do_sep_z_and_axis(force, current, new)
    assert separate_axis(current, new, force) == (axis if separate else None)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_of_equal_logits_the_lower_class_wins(kind):
    logits = torch.ones(3, 2, 2, 2, dtype=kind)
    logits[0] = 0
    way = InversePreprocessing((4, 5, 6), (4, 5, 6), ((0, 4), (0, 5), (0, 6)))
    assert (mask_from_logits(logits, way) == 1).all()
    assert (mask_from_logits(logits[1:], way) == 0).all()
    assert (mask_from_logits(logits[:1], way) == 0).all()


def test_what_the_box_has_beyond_the_scan_is_dropped():
    way = InversePreprocessing((4, 4, 4), (5, 5, 5), ((-1, 3), (3, 7), (0, 4)))
    mask = mask_from_logits(torch.stack([torch.zeros(4, 4, 4), torch.ones(4, 4, 4)]), way)
    assert mask.sum() == 3 * 2 * 4
    assert mask[:3, 3:, :4].all()


def test_many_classes_need_sixteen_bits():
    way = InversePreprocessing((2, 2, 2), (2, 2, 2), ((0, 2), (0, 2), (0, 2)))
    logits = torch.zeros(300, 2, 2, 2)
    logits[299] = 1
    mask = mask_from_logits(logits, way)
    assert mask.dtype == np.uint16
    assert (mask == 299).all()


def test_memory_does_not_grow_with_the_depth():
    limit, peaks = 2**20, []
    for depth in (24, 96):
        way = InversePreprocessing((depth, 64, 64), (depth, 64, 64), ((0, depth), (0, 64), (0, 64)))
        logits = torch.randn(3, depth // 2, 32, 32)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            mask_from_logits(logits, way, limit_bytes=limit)
        held = highest = 0
        for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
            held += event.nbytes() if event.name() == "[memory]" else 0
            highest = max(highest, held)
        peaks.append(highest)
    assert max(peaks) <= limit
    assert peaks[1] < 1.1 * peaks[0]


def test_what_cannot_be_is_refused():
    other = SETTINGS | {"resampling_fn_probabilities": "no_resampling_hack"}
    assert is_default(SETTINGS)
    assert not is_default(other)
    plans, configuration, properties = case((4, 4, 4), (1, 1, 1), (1, 1, 1))
    configuration.configuration = other
    with pytest.raises(ConfigError, match="no_resampling_hack"):
        InversePreprocessing.read(plans, configuration, properties)
    with pytest.raises(DataError, match="does not fill"):
        InversePreprocessing((4, 4, 4), (4, 4, 4), ((0, 4), (0, 4), (0, 3)))
    with pytest.raises(DataError, match="Transposition"):
        InversePreprocessing((4, 4, 4), (4, 4, 4), ((0, 4), (0, 4), (0, 4)), backward=(0, 0, 1))
    with pytest.raises(DataError, match="Logits"):
        mask_from_logits(torch.zeros(2, 3, 3), InversePreprocessing((4, 4, 4), (4, 4, 4), ((0, 4), (0, 4), (0, 4))))
