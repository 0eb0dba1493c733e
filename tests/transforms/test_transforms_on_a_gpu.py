"""Resampling and augmentation on a simulated GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lnsegfm.nnunet.fast_resampling import resample_data_or_seg_to_shape
from lnsegfm.transforms.augmentation.augmentation_parameters import AugmentationSettings
from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.transforms.resampling.resample_blockwise import ResamplingRule
from lnsegfm.transforms.resampling.resample_images import resample_image
from tests.simulated_gpu import simulated_gpu

THICK, THIN = (5.0, 1.0, 1.0), (1.0, 1.0, 1.0)
READS_A_SAMPLE = 4
"""Which voxels are labelled, and which labels these are: a GPU has to say before labels are interpolated there."""


@pytest.mark.parametrize("spacing", [THICK, THIN])
@pytest.mark.parametrize("order", [1, 3])
def test_an_image_is_resampled_without_a_wait(spacing: tuple[float, float, float], order: int) -> None:
    image = np.random.default_rng(0).normal(size=(2, 6, 9, 10)).astype(np.float32)
    expected = resample_image(image, (9, 7, 12), spacing, THIN, rule=ResamplingRule(order=order))
    with simulated_gpu() as gpu:
        found = resample_image(
            image, (9, 7, 12), spacing, THIN, rule=ResamplingRule(order=order), device="cuda", max_bytes=4096
        )

    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert gpu.reads == {}


def test_nnunet_s_resampling_is_replaced_on_a_gpu_as_well() -> None:
    logits = np.random.default_rng(1).normal(size=(2, 6, 9, 10)).astype(np.float32)
    where = ((9, 7, 12), THICK, THIN)
    expected = resample_data_or_seg_to_shape(logits, *where, order=1, force_separate_z=None)
    with simulated_gpu():
        found = resample_data_or_seg_to_shape(logits, *where, order=1, force_separate_z=None, device="cuda")

    np.testing.assert_allclose(found, expected, atol=1e-5)


def case(seed: int) -> PreparedCase:
    random = np.random.default_rng(seed)
    image = random.normal(size=(1, 20, 24, 28)).astype(np.float32)
    labels = np.zeros((1, 20, 24, 28), dtype=np.int16)
    labels[0, 8:12, 8:14, 9:15] = 1
    places = np.argwhere(labels == 1)
    return PreparedCase.prepared(f"case_{seed}", image, labels, {1: places})


def test_samples_are_made_where_the_scans_lie() -> None:
    settings = AugmentationSettings(
        patch=(12, 12, 12), box=(16, 16, 16), angle=0.5, in_plane=False, mirror_axes=(0, 1, 2)
    )
    scales = ((1, 1, 1), (0.5, 0.5, 0.5))
    number = 6
    here = AugmentedBatches([case(0), case(1)], settings, 2, 0, scales=scales)
    with simulated_gpu() as gpu:
        there = AugmentedBatches([case(i).to("cuda") for i in range(2)], settings, 2, 0, scales=scales)
        batches = [there[i] for i in range(number)]

        assert all(batch["data"].is_cuda and all(target.is_cuda for target in batch["target"]) for batch in batches)
    for i, batch in enumerate(batches):
        expected = here[i]
        torch.testing.assert_close(batch["data"], expected["data"], atol=1e-4, rtol=1e-4)
        assert torch.equal(batch["target"][0], expected["target"][0])
    assert gpu.to_host == {}
    assert sum(gpu.reads.values()) <= READS_A_SAMPLE * 2 * number
