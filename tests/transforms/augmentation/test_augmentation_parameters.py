"""What is drawn is distributed as nnU-Net's loader and transforms draw it."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from scipy.stats import binomtest, ks_2samp

from lnsegfm.transforms.augmentation.augmentation_parameters import (
    AugmentationSettings,
    SampleParameters,
    TransformRates,
    draw_batch_parameters,
    draw_sample_parameters,
)
from lnsegfm.transforms.augmentation.augmented_batches import AugmentedBatches
from lnsegfm.transforms.augmentation.prepared_case import PreparedCase

PATCH = (8, 10, 12)
CHANNELS = 2
STOCK_SAMPLES = 1500
OUR_SAMPLES = 6000
SAME = 1e-3
"""A test that compares two right samples gives less once in a thousand; the seeds are fixed."""


def box(angle: float, in_plane: bool) -> tuple[int, int, int]:
    limits = (-angle, angle)
    z, y, x = (int(n) for n in get_patch_size(PATCH, limits, limits, limits, (0.85, 1.25)))
    return (PATCH[0] if in_plane else z), y, x


def wanted(in_plane: bool = False, **changes: Any) -> AugmentationSettings:
    angle = math.pi if in_plane else math.pi / 6
    return AugmentationSettings(
        patch=PATCH, box=box(angle, in_plane), angle=angle, in_plane=in_plane, channels=CHANNELS, **changes
    )


def stock_transforms(in_plane: bool) -> Any:
    angle = math.pi if in_plane else math.pi / 6
    return nnUNetTrainer.get_training_transforms(PATCH, (-angle, angle), None, (0, 1, 2), in_plane)


def stock_draws(in_plane: bool) -> dict[str, list[Any]]:
    """What stock's transforms draw, by the place that each has among them."""
    np.random.seed(1)
    torch.manual_seed(1)
    found: dict[str, list[Any]] = {}
    steps = []
    for step in stock_transforms(in_plane).transforms:
        inner = getattr(step, "transform", step)
        steps.append((f"{type(inner).__name__} {getattr(inner, 'p_invert_image', '')}".strip(), step, inner))
    dims = (CHANNELS * PATCH[0], *PATCH[1:]) if in_plane else (CHANNELS, *PATCH)
    for _ in range(STOCK_SAMPLES):
        for name, step, inner in steps:
            if name in ("Convert3DTo2DTransform", "Convert2DTo3DTransform", "RemoveLabelTransform"):
                continue
            image = torch.zeros(dims if name == "SpatialTransform" else (CHANNELS, *PATCH))
            comes = step is inner or step.get_parameters(image=image)["apply_transform"]
            found.setdefault(name, []).append(inner.get_parameters(image=image) if comes else None)
    return found


@pytest.fixture(scope="module", params=[False, True], ids=["3d", "in plane"])
def drawn(request: pytest.FixtureRequest) -> tuple[bool, dict[str, list[Any]], list[SampleParameters]]:
    in_plane = request.param
    scan = SimpleNamespace(shape=(30, 30, 30), locations={1: np.array([[0, 15, 15, 15]])})
    random = np.random.default_rng(2)
    settings = wanted(in_plane)
    return (
        in_plane,
        stock_draws(in_plane),
        [draw_sample_parameters(settings, [scan], random, foreground=True) for _ in range(OUR_SAMPLES)],
    )


def alike(stock: list[float], ours: list[float], *, ends: bool = False) -> None:
    assert min(len(stock), len(ours)) > 20
    assert ks_2samp(stock, ours).pvalue > SAME, (np.mean(stock), np.mean(ours), np.ptp(stock), np.ptp(ours))
    if ends:  # of a range whose ends are drawn as often as its middle
        assert abs(min(stock) - min(ours)) < 0.06 * np.ptp(stock)
        assert abs(max(stock) - max(ours)) < 0.06 * np.ptp(stock)


def as_often(stock: list[bool], ours: list[bool], rate: float) -> None:
    for found in (stock, ours):
        assert binomtest(int(sum(found)), len(found), rate).pvalue > SAME, (np.mean(found), rate)


def test_rotation_and_scaling(drawn):
    in_plane, stock, ours = drawn
    matrices = [p["affine"] for p in stock["SpatialTransform"]]
    as_often([m is not None for m in matrices], [not d.is_plain for d in ours], 0.36)
    found = [m for m in matrices if m is not None]
    made = [d.matrix(in_plane=in_plane)[in_plane:, in_plane:] for d in ours if not d.is_plain]
    dims = 3 - in_plane
    sizes, our_sizes = ([np.linalg.det(m) ** (1 / dims) for m in all_] for all_ in (found, made))
    is_scaled, we_scale = ([abs(s - 1) > 1e-9 for s in all_] for all_ in (sizes, our_sizes))
    as_often(is_scaled, we_scale, 0.2 / 0.36)
    alike([s for s in sizes if abs(s - 1) > 1e-9], [s for s in our_sizes if abs(s - 1) > 1e-9], ends=True)
    turned, we_turned = (
        [None if np.allclose(m, s * np.eye(dims)) else m / s for m, s in zip(all_, scale, strict=True)]
        for all_, scale in ((found, sizes), (made, our_sizes))
    )
    as_often([m is not None for m in turned], [m is not None for m in we_turned], 0.2 / 0.36)
    for entry in np.ndindex(dims, dims):
        alike([m[entry] for m in turned if m is not None], [m[entry] for m in we_turned if m is not None])


SINGLE = {
    "GaussianNoiseTransform": ("noise", 0.1, lambda p: [p["sigmas"]], lambda v: [v]),
    "MultiplicativeBrightnessTransform": ("brightness", 0.15, lambda p: p["multipliers"].tolist(), list),
    "ContrastTransform": ("contrast", 0.15, lambda p: p["multipliers"].tolist(), list),
    "GammaTransform 1.0": ("inverted_gamma", 0.1, lambda p: p["gamma"].tolist(), list),
    "GammaTransform 0.0": ("gamma", 0.3, lambda p: p["gamma"].tolist(), list),
}


@pytest.mark.parametrize("name", SINGLE)
def test_intensities(drawn, name):
    _, stock, ours = drawn
    field, rate, of_stock, of_ours = SINGLE[name]
    theirs = [p and of_stock(p) for p in stock[name]]
    mine = [of_ours(v) if (v := getattr(d, field)) is not None else None for d in ours]
    as_often([v is not None for v in theirs], [v is not None for v in mine], rate)
    for channel in range(CHANNELS if field != "noise" else 1):
        alike([v[channel] for v in theirs if v], [v[channel] for v in mine if v], ends=True)
    if field != "noise":  # channels differ
        alike([v[0] - v[1] for v in theirs if v], [v[0] - v[1] for v in mine if v])
    if name.startswith("Gamma"):
        assert all(bool(p["retain_stats"].all()) for p in stock[name] if p)


def test_blur(drawn):
    _, stock, ours = drawn
    as_often([p is not None for p in stock["GaussianBlurTransform"]], [d.blur is not None for d in ours], 0.2)
    theirs = [p for p in stock["GaussianBlurTransform"] if p]
    mine = [d.blur for d in ours if d.blur is not None]
    for channel in range(CHANNELS):
        as_often([bool(p["apply_to_channel"][channel]) for p in theirs], [b[channel] is not None for b in mine], 0.5)
    found = [sds for p in theirs for sds in p["sigmas"]]
    made = [sds for b in mine for sds in b if sds]
    for axis in range(3):
        alike([s[axis] for s in found], [s[axis] for s in made], ends=True)
    alike([s[0] - s[2] for s in found], [s[0] - s[2] for s in made])


def test_low_resolution(drawn):
    in_plane, stock, ours = drawn
    theirs = stock["SimulateLowResolutionTransform"]
    as_often([p is not None for p in theirs], [d.low_resolution is not None for d in ours], 0.25)
    mine = [d.low_resolution for d in ours if d.low_resolution is not None]
    theirs = [p for p in theirs if p]
    for channel in range(CHANNELS):
        as_often([channel in p["apply_to_channel"] for p in theirs], [m[channel] is not None for m in mine], 0.5)
    alike([float(s[2]) for p in theirs for s in p["scales"]], [s for m in mine for s in m if s is not None], ends=True)
    assert all((float(s[0]) == 1) == in_plane for p in theirs for s in p["scales"])


def test_mirroring(drawn):
    _, stock, ours = drawn
    for axis in range(3):
        as_often([axis in p["axes"] for p in stock["MirrorTransform"]], [axis in d.mirrored for d in ours], 0.5)
    together = [(0 in d.mirrored) == (2 in d.mirrored) for d in ours]  # axes are mirrored independently
    as_often(together, together, 0.5)


@pytest.mark.parametrize("shape", [(30, 25, 12), (7, 40, 9), (8, 10, 12)])
@pytest.mark.parametrize("has_ignore", [False, True])
@pytest.mark.parametrize("foreground", [False, True])
def test_places(shape, has_ignore, foreground):
    random = np.random.default_rng(3)
    everywhere = np.argwhere(np.ones((1, *shape)))
    locations = {
        1: everywhere[random.choice(len(everywhere), 5)],
        2: everywhere[-3:],
        3: everywhere[:0],
        (-1, 0, 1, 2, 3, 4): everywhere[: len(everywhere) // 4],
    }
    settings = wanted(has_ignore=has_ignore, every_label=(-1, 0, 1, 2, 3, 4), rates=TransformRates.none())
    labels = SimpleNamespace(all_labels=[0, 1, 2, 3, 4], has_ignore_label=has_ignore)
    loader = nnUNetDataLoader(SimpleNamespace(identifiers=["a"]), 2, settings.box, PATCH, labels, 0.33)
    np.random.seed(4)
    theirs = [loader.get_bbox(np.array(shape), foreground, locations)[0] for _ in range(1500)]
    scan = SimpleNamespace(shape=shape, locations=locations)
    mine = [draw_sample_parameters(settings, [scan], random, foreground=foreground).lower for _ in range(3000)]
    for axis in range(3):
        found, made = [t[axis] for t in theirs], [m[axis] for m in mine]
        assert set(found) == set(made)
        assert ks_2samp(found, made).pvalue > SAME


def test_without_labelled_voxels_a_sample_comes_from_anywhere():
    scan = SimpleNamespace(shape=(30, 30, 30), locations={1: np.zeros((0, 4), int)})
    random = np.random.default_rng(5)
    assert len({draw_sample_parameters(wanted(), [scan], random, foreground=True).lower for _ in range(20)}) > 15


@pytest.mark.parametrize(("size", "share"), [(2, 0.33), (3, 0.33), (4, 0.33), (5, 0.5), (2, 0.0), (2, 1.0)])
def test_the_last_samples_of_a_batch_are_centred_on_foreground(size, share):
    labels = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)
    loader = nnUNetDataLoader(SimpleNamespace(identifiers=["a"]), size, PATCH, PATCH, labels, share)
    settings = wanted(foreground=share, rates=TransformRates.none())
    scan = SimpleNamespace(shape=(90, 90, 90), locations={1: np.array([[0, 70, 71, 72]])})
    at = tuple(v - b // 2 for v, b in zip((70, 71, 72), settings.box, strict=True))
    for iteration in range(3):
        made = draw_batch_parameters(settings, [scan], size, 0, iteration)
        assert [d.lower == at for d in made] == [bool(loader.get_do_oversample(i)) for i in range(size)]


def test_draws_follow_from_seed_iteration_and_sample():
    scan = SimpleNamespace(shape=(30, 30, 30), locations={})
    first = draw_batch_parameters(wanted(), [scan] * 3, 4, 7, 11)
    assert first == draw_batch_parameters(wanted(), [scan] * 3, 4, 7, 11)
    assert first[:2] == draw_batch_parameters(wanted(), [scan] * 3, 2, 7, 11)
    others = [
        draw_batch_parameters(wanted(), [scan] * 3, 4, *origin) for origin in ((8, 11), (7, 12), (7, 11, 1), (7, 0))
    ]
    assert all(d not in first for other in others for d in other)
    cases = [d.case for i in range(300) for d in draw_batch_parameters(wanted(), [scan] * 3, 4, 7, i)]
    assert all(abs(cases.count(case) - 400) < 70 for case in range(3))


def test_intensities_and_labels_of_whole_samples_have_stock_s_moments():
    random = np.random.default_rng(6)
    cases = {}
    for name in "ab":
        ramp = np.linspace(-1, 2, 24, dtype=np.float32)
        image = (random.standard_normal((CHANNELS, 20, 22, 24)) * 0.5 + ramp).astype(np.float32)
        labels = (image[:1] > 1.2).astype(np.int16)
        labels[:, :2] = -1
        cases[name] = (image, labels, {"class_locations": {1: np.argwhere(labels == 1)}})
    stored = {name: (image.copy(), labels.copy(), None, found) for name, (image, labels, found) in cases.items()}
    # nnU-Net's transforms write into what the loader cut out; its own files give copies
    dataset = SimpleNamespace(
        identifiers=sorted(cases), load_case=lambda name: tuple(copy.deepcopy(part) for part in stored[name])
    )
    settings, size, rounds = wanted(), 4, 250
    shots = [PreparedCase.prepared(name, d, s, p["class_locations"]) for name, (d, s, p) in cases.items()]
    kinds = SimpleNamespace(all_labels=[0, 1], has_ignore_label=False)
    transforms = stock_transforms(False)
    for step in transforms.transforms:
        if hasattr(getattr(step, "transform", None), "benchmark"):
            step.transform.benchmark = False
    loader = nnUNetDataLoader(dataset, size, settings.box, PATCH, kinds, 0.33, transforms=transforms)
    np.random.seed(7)
    torch.manual_seed(7)
    theirs = [next(loader) for _ in range(rounds)]
    ours = AugmentedBatches(shots, settings, size, seed=7)
    mine = [ours[i] for i in range(rounds)]
    moments = {
        "mean": lambda b: b["data"].mean((2, 3, 4)),
        "sd": lambda b: b["data"].std((2, 3, 4)),
        "least": lambda b: b["data"].amin((2, 3, 4)),
        "most": lambda b: b["data"].amax((2, 3, 4)),
        "roughness": lambda b: b["data"].diff(dim=-1).abs().mean((2, 3, 4)),
        "share of foreground": lambda b: b["target"].float().mean((2, 3, 4)),
        "share of zeros": lambda b: (b["data"] == 0).float().mean((2, 3, 4)),
        "slope": lambda b: b["data"][..., 6:].mean((2, 3, 4)) - b["data"][..., :6].mean((2, 3, 4)),
    }
    for what, moment in moments.items():
        for channel in range(CHANNELS if what != "share of foreground" else 1):
            found, made = (torch.cat([moment(b)[:, channel] for b in side]).numpy() for side in (theirs, mine))
            assert ks_2samp(found, made).pvalue > SAME, (what, found.mean(), made.mean())
    assert {int(v) for b in mine for v in b["target"].unique()} == {0, 1}
