"""Given the same choice, a sample is the one that nnU-Net's own transforms make."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import DownsampleSegForDSTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lnsegfm.errors import ConfigError, DataError
from lnsegfm.transforms.augmentation.augmentation_parameters import (
    AugmentationSettings,
    SampleParameters,
    TransformRates,
    draw_batch_parameters,
)
from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches, augment_sample, downsample_labels
from lnsegfm.transforms.augmentation.intensity_transforms import augment_intensities
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase
from lnsegfm.transforms.augmentation.spatial_transforms import sample_patch

PLAIN = SampleParameters(case=0, lower=(0, 0, 0))


def blobs(shape: tuple[int, int, int], seed: int, channels: int = 1, labels: int = 3) -> PreparedCase:
    """Smooth noise cut into labels, with a corner that has no data."""
    random = np.random.default_rng(seed)
    image = random.standard_normal((channels, *shape)).astype(np.float32)
    coarse = torch.from_numpy(random.random((1, 1, *(math.ceil(n / 4) for n in shape))).astype(np.float32))
    field = torch.nn.functional.interpolate(coarse, shape, mode="trilinear")[0, 0].numpy()
    found = np.digitize(field, np.linspace(0.5, 0.8, labels)).astype(np.int16)
    found[:2, :3, :4] = -1
    locations = {int(v): np.argwhere(found[None] == v) for v in range(1, labels + 1)}
    return PreparedCase.prepared(f"case{seed}", image, found[None], locations)


def stock_spatial(
    shot: PreparedCase, draw: SampleParameters, wanted: AugmentationSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same choice by nnU-Net's loader's crop and its spatial transform."""
    box = [[low, low + n] for low, n in zip(draw.lower, wanted.box, strict=True)]
    data = {
        "image": torch.from_numpy(crop_and_pad_nd(shot.image.numpy(), box, 0)),
        "segmentation": torch.from_numpy(crop_and_pad_nd(shot.labels[None].numpy(), box, -1)),
    }
    angles = draw.angles or (0.0, 0.0, 0.0)
    turned = SpatialTransform(
        wanted.patch[wanted.in_plane :],
        patch_center_dist_from_border=0,
        random_crop=False,
        p_rotation=draw.angles is not None,
        rotation=lambda dim, **_: angles[0 if wanted.in_plane else dim],
        p_scaling=draw.scale is not None,
        scaling=draw.scale or 1.0,
        p_synchronize_scaling_across_axes=1,
        border_mode_seg="constant",
        padding_value_seg=-1,
    )
    steps = [Convert3DTo2DTransform(), turned, Convert2DTo3DTransform()] if wanted.in_plane else [turned]
    for step in steps:
        data = step(**data)
    return data["image"], data["segmentation"][0]


sizes = st.tuples(*[st.integers(6, 17)] * 3)
# no round numbers: where a place lies midway between two voxels, rounding alone decides
angles = st.tuples(*[st.floats(-math.pi, math.pi).map(lambda angle: angle + 0.0137)] * 3)
scales = st.floats(0.7, 1.4).map(lambda scale: scale + 0.00137)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    shape=sizes,
    patch=sizes,
    more=st.tuples(*[st.integers(0, 7)] * 3),
    lower=st.tuples(*[st.integers(-8, 5)] * 3),
    angles=st.none() | angles,
    scale=st.none() | scales,
    in_plane=st.booleans(),
    labels=st.integers(1, 4),
    masked=st.booleans(),
)
def test_a_sample_is_stock_s(shape, patch, more, lower, angles, scale, in_plane, labels, masked):
    box = tuple(p + (0 if in_plane and axis == 0 else m) for axis, (p, m) in enumerate(zip(patch, more, strict=True)))
    # nnU-Net never reads a box that lies outside of the scan altogether
    assume(all(low + b > 0 and low < n for low, b, n in zip(lower, box, shape, strict=True)))
    if in_plane and angles is not None:
        angles = (angles[0], 0.0, 0.0)
    wanted = AugmentationSettings(patch=patch, box=box, in_plane=in_plane, channels=2, masked=(0,) if masked else ())
    shot = blobs(shape, sum(shape), channels=2, labels=labels)
    draw = replace(PLAIN, lower=lower, angles=angles, scale=scale)

    image, found = sample_patch(shot.image, shot.labels, draw, wanted)
    stock_image, stock_labels = stock_spatial(shot, draw, wanted)

    torch.testing.assert_close(image, stock_image, rtol=0, atol=2e-4)
    if not masked:
        found, stock_labels = found.clamp(min=0), stock_labels.clamp(min=0)
    # a place may be off by 1e-5 voxels: two shares that are nearly equal, or float16 of either, may fall otherwise
    assert (found != stock_labels).sum() <= max(1, 0.002 * found.numel())


def test_most_samples_have_stock_s_labels_to_the_voxel():
    wanted = AugmentationSettings(patch=(16, 20, 24), box=(20, 26, 30))
    shot = blobs((30, 30, 30), 1)
    same = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        turn = tuple(random.uniform(-0.5, 0.5, 3))
        draw = replace(PLAIN, lower=(-1, 2, 3), angles=turn, scale=random.uniform(0.7, 1.4))
        same += torch.equal(
            sample_patch(shot.image, shot.labels, draw, wanted)[1].clamp(min=0),
            stock_spatial(shot, draw, wanted)[1].clamp(min=0),
        )
    assert same >= 18


@pytest.mark.parametrize(("axis", "quarter"), [*product(range(3), (1, 2, 3))])
def test_quarter_turns_move_voxels_and_change_none(axis, quarter):
    wanted = AugmentationSettings(patch=(9, 9, 9), box=(9, 9, 9))
    shot = blobs((9, 9, 9), 2)
    angles = tuple(quarter * math.pi / 2 if a == axis else 0.0 for a in range(3))
    image, labels = sample_patch(shot.image, shot.labels, replace(PLAIN, angles=angles), wanted)
    plane = [(2, 1), (0, 2), (1, 0)][axis]
    torch.testing.assert_close(image[0], torch.rot90(shot.image[0], quarter, plane), atol=1e-4, rtol=0)
    assert torch.equal(labels.clamp(min=0), torch.rot90(shot.labels, quarter, plane).clamp(min=0))


def test_scale_1_and_angle_0_are_the_crop():
    wanted = AugmentationSettings(patch=(8, 9, 10), box=(8, 9, 10))
    shot = blobs((14, 14, 14), 3)
    for lower in ((2, 3, 1), (-3, 8, 2)):
        crop = sample_patch(shot.image, shot.labels, replace(PLAIN, lower=lower), wanted)
        turned = sample_patch(
            shot.image, shot.labels, replace(PLAIN, lower=lower, angles=(0.0, 0.0, 0.0), scale=1.0), wanted
        )
        torch.testing.assert_close(turned[0], crop[0], atol=1e-5, rtol=0)
        assert torch.equal(turned[1].clamp(min=0), crop[1].clamp(min=0))


def test_without_any_transform_a_batch_is_the_plain_crop_and_scans_stay_as_they_were():
    wanted = AugmentationSettings(patch=(8, 8, 8), box=(12, 12, 12), rates=TransformRates.none())
    shot = blobs((20, 20, 20), 4)
    before = shot.image.clone(), shot.labels.clone()
    for draw in draw_batch_parameters(wanted, [shot], 20, seed=0, iteration=0):
        image, labels = augment_sample(shot, draw, wanted)
        edges = [[low + 2, low + 10] for low in draw.lower]
        assert np.array_equal(image, crop_and_pad_nd(shot.image.numpy(), edges, 0))
        assert np.array_equal(labels, crop_and_pad_nd(shot.labels[None].numpy(), edges, 0).clip(min=0))
    everything = replace(wanted, rates=TransformRates(**dict.fromkeys(vars(TransformRates()), 1.0)))
    for draw in draw_batch_parameters(everything, [shot], 20, seed=0, iteration=1):
        augment_sample(shot, draw, everything)
    assert torch.equal(shot.image, before[0])
    assert torch.equal(shot.labels, before[1])


def test_mirrored_samples_are_the_others_flipped_and_masked_channels_0_without_data():
    wanted = AugmentationSettings(patch=(8, 8, 8), box=(8, 8, 8), channels=2, masked=(1,))
    shot = blobs((12, 12, 12), 5, channels=2)
    for axes in ((0,), (1,), (2,), (0, 2)):
        draw = replace(PLAIN, lower=(-2, 0, 0))
        image, labels = augment_sample(shot, draw, wanted)
        flipped, flipped_labels = augment_sample(shot, replace(draw, mirrored=axes), wanted)
        over = [axis + 1 for axis in axes]
        assert torch.equal(flipped, image.flip(over))
        assert torch.equal(flipped_labels, labels.flip(over))
    has_data = crop_and_pad_nd(shot.labels[None].numpy(), [[-2, 6], [0, 8], [0, 8]], -1)[0] >= 0
    assert (image[1].numpy()[~has_data] == 0).all()
    assert (image[1].numpy()[has_data] != 0).all()
    assert (image[0].numpy()[2:, :3, :4] != 0).all()


NUMBERS = (0.72, 0.9, 1.3)
STOCK: dict[str, tuple[BasicTransform, dict[str, object]]] = {
    f"{name} {number}": case
    for number in NUMBERS
    for name, case in {
        "brightness": (
            MultiplicativeBrightnessTransform(number, synchronize_channels=False),
            {"brightness": (number, number)},
        ),
        "contrast": (
            ContrastTransform(number, preserve_range=True, synchronize_channels=False),
            {"contrast": (number, number)},
        ),
        "gamma": (GammaTransform(number, 0, False, 1, 1), {"gamma": (number, number)}),
        "inverted gamma": (GammaTransform(number, 1, False, 1, 1), {"inverted_gamma": (number, number)}),
    }.items()
} | {
    f"{name} {number}": case
    for number in (0.5, 0.613, 0.9375, 1.0)
    for name, case in {
        "blur": (
            GaussianBlurTransform(lambda _, dim, n=number: n - 0.05 * dim),
            {"blur": (tuple(number - 0.05 * axis for axis in (1, 2, 3)),) * 2},
        ),
        "low resolution": (
            SimulateLowResolutionTransform(number, False, True, None),
            {"low_resolution": (number, number)},
        ),
    }.items()
}


@pytest.mark.parametrize("name", STOCK)
def test_intensities_are_stock_s(name):
    transform, choice = STOCK[name]
    image = torch.randn((2, 11, 12, 17), generator=torch.Generator().manual_seed(0)) * 2 + 0.5
    expected = transform(image=image.clone())["image"]
    found = augment_intensities(image.clone(), replace(PLAIN, **choice))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    assert name == "low resolution 1.0" or name.startswith("blur 0.5") or not torch.equal(found, image)


def test_in_plane_low_resolution_keeps_slices():
    image = torch.randn((1, 6, 12, 17))
    expected = SimulateLowResolutionTransform(0.6, False, True, (0,))(image=image.clone())["image"]
    found = augment_intensities(image.clone(), replace(PLAIN, low_resolution=(0.6,)), in_plane=True)
    torch.testing.assert_close(found, expected)


def test_channels_that_were_not_drawn_stay():
    image = torch.randn((2, 8, 8, 8))
    draw = replace(PLAIN, blur=(None, (1.0, 1.0, 1.0)), low_resolution=(None, 0.5))
    found = augment_intensities(image.clone(), draw)
    assert torch.equal(found[0], image[0])
    assert not torch.equal(found[1], image[1])


def test_a_flat_image_stays_finite():
    choice = replace(PLAIN, contrast=(1.2,), gamma=(1.3,), inverted_gamma=(0.8,))
    found = augment_intensities(torch.full((1, 8, 8, 8), -1.5), choice)
    torch.testing.assert_close(found, torch.full((1, 8, 8, 8), -1.5))


def test_noise_has_its_standard_deviation_and_follows_its_seed():
    first, again, other = (
        augment_intensities(torch.zeros((2, 30, 30, 30)), replace(PLAIN, noise=0.07, noise_seed=seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.std().item() == pytest.approx(0.07, rel=0.02)
    assert first.mean().item() == pytest.approx(0, abs=0.002)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(shape=sizes, scales=st.lists(st.tuples(*[st.sampled_from((1.0, 0.5, 0.25, 1 / 3))] * 3), min_size=1, max_size=4))
def test_targets_of_deep_supervision_are_stock_s(shape, scales):
    labels = blobs(shape, 6).labels[None].clamp(min=0)
    expected = DownsampleSegForDSTransform([list(s) for s in scales])(segmentation=labels)["segmentation"]
    for found, target in zip(downsample_labels(labels, scales), expected, strict=True):
        assert torch.equal(found, target)


def test_batches_follow_from_seed_and_iteration_whoever_makes_them():
    shots = [blobs((14, 16, 18), seed) for seed in (7, 8)]
    wanted = AugmentationSettings(patch=(10, 10, 12), box=(12, 12, 14))
    batches = AugmentedBatches(shots, wanted, 2, seed=3, scales=[(1, 1, 1), (0.5, 0.5, 0.5)])
    here = list(batches.over(range(6), 0, pin=False))
    there = list(batches.over(range(6), 2, pin=False))
    for mine, theirs in zip(here, there, strict=True):
        assert torch.equal(mine["data"], theirs["data"])
        assert all(torch.equal(a, b) for a, b in zip(mine["target"], theirs["target"], strict=True))
        assert mine["keys"] == theirs["keys"]
    assert here[0]["data"].shape == (2, 1, 10, 10, 12)
    assert [tuple(t.shape) for t in here[0]["target"]] == [(2, 1, 10, 10, 12), (2, 1, 5, 5, 6)]
    assert here[0]["target"][0].dtype == torch.int16
    assert all(batch["target"][0].min() >= 0 for batch in here)
    assert not torch.equal(here[0]["data"], here[1]["data"])
    of_another = AugmentedBatches(shots, wanted, 2, seed=3, rank=1)[0]
    assert not torch.equal(of_another["data"], here[0]["data"])


def test_batches_do_not_depend_on_threads():
    """In patches large enough that torch would sum in parallel."""
    wanted = AugmentationSettings(
        patch=(40, 48, 48), box=(44, 52, 52), rates=TransformRates(**dict.fromkeys(vars(TransformRates()), 1.0))
    )
    batches = AugmentedBatches([blobs((50, 60, 60), 9)], wanted, 1, seed=0)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(batches[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one["data"], found[0]["data"]) for one in found)
    assert all(torch.equal(one["target"], found[0]["target"]) for one in found)


def test_what_cannot_be_is_told():
    with pytest.raises(ConfigError, match="does not hold a patch"):
        AugmentationSettings(patch=(8, 8, 8), box=(8, 7, 8))
    with pytest.raises(ConfigError, match="other slices"):
        AugmentationSettings(patch=(8, 8, 8), box=(9, 8, 8), in_plane=True)
    with pytest.raises(ConfigError, match="not three axes"):
        AugmentationSettings(patch=(8, 8), box=(9, 8))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Mirror axes"):
        AugmentationSettings(patch=(8, 8, 8), box=(8, 8, 8), mirror_axes=(3,))
    with pytest.raises(ConfigError, match=r"blur 1\.5"):
        TransformRates(blur=1.5)
    with pytest.raises(ConfigError, match="at least one"):
        AugmentedBatches([], AugmentationSettings(patch=(8, 8, 8), box=(8, 8, 8)), 2, seed=0)
    with pytest.raises(DataError, match="same voxels"):
        PreparedCase(name="a", image=torch.zeros(1, 3, 3, 3), labels=torch.zeros(3, 3, 4), locations={})
