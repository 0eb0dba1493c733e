"""The sliding window is nnU-Net's, batched or not; what may differ is counted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import nn

from lnsegfm.datasets.labels import LabelMap
from lnsegfm.errors import ConfigError, DataError, ModelError
from lnsegfm.evaluation.flags import Overlap
from lnsegfm.inference.mirror_agreement import MirrorAgreement
from lnsegfm.inference.sliding_window import Air, constant_tiles, sliding_window
from lnsegfm.inference.tile_forward import SliceNetwork
from lnsegfm.inference.tile_positions import gaussian_importance, mirrorings, tile_positions
from lnsegfm.networks import cpu_allocator as allocator
from lnsegfm.nnunet.environment import nnunet_environment

PATCH = (8, 6, 10)
FEW = settings(max_examples=15, deadline=None, derandomize=True)
pytestmark = pytest.mark.usefixtures("one_thread")


class Recorder(nn.Module):
    """Remembers how many tiles it was asked of at once."""

    def __init__(self, network: nn.Module, most: int = 10**6) -> None:
        super().__init__()
        self.network, self.most, self.asked = network, most, []

    def forward(self, x):
        if len(x) > self.most:
            raise torch.OutOfMemoryError
        self.asked.append(len(x))
        return self.network(x)


def network(classes: int = 3, channels: int = 1, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(channels, 4, 3, padding=1), nn.InstanceNorm3d(4), nn.LeakyReLU(), nn.Conv3d(4, classes, 3, padding=1)
    ).eval()


def stock(net, volume, *, step=0.5, mirror_axes=(), patch=PATCH):
    with nnunet_environment():  # it prints
        predictor = nnUNetPredictor(
            tile_step_size=step, use_mirroring=bool(mirror_axes), device=torch.device("cpu"), allow_tqdm=False
        )
    predictor.network, predictor.allowed_mirroring_axes = net, tuple(mirror_axes) or None
    predictor.configuration_manager = SimpleNamespace(patch_size=list(patch))
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=net[-1].out_channels)
    return predictor.predict_sliding_window_return_logits(volume)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(4, 40)] * 3), st.tuples(*[st.integers(0, 40)] * 3), st.sampled_from([0.3, 0.5, 0.75, 1]))
def test_tiles_lie_where_nnunets_do(patch, more, step):
    shape = tuple(a + b for a, b in zip(patch, more, strict=True))
    expected = compute_steps_for_sliding_window(shape, patch, step)
    starts = [tuple(part.start for part in at) for at in tile_positions(shape, patch, step)]
    assert starts == [(z, y, x) for z in expected[0] for y in expected[1] for x in expected[2]]


@pytest.mark.parametrize("patch", [(8, 6, 10), (5, 64, 48), (1, 3, 2)])
def test_weights_are_nnunets(patch):
    expected = compute_gaussian(patch, value_scaling_factor=10, device=torch.device("cpu"))
    assert torch.equal(gaussian_importance(patch), expected.float())
    assert gaussian_importance(patch) is gaussian_importance(patch)


@FEW
@given(st.data())
def test_logits_are_nnunets_bit_for_bit_in_its_precision(data):
    shape = data.draw(st.tuples(*[st.integers(3, 17)] * 3))
    channels, step = data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([0.5, 0.8]))
    axes = data.draw(st.sampled_from([(), (0,), (1, 2), (0, 1, 2), (2, 0)]))
    volume, net = torch.randn(channels, *shape), network(channels=channels)

    expected = stock(net, volume, step=step, mirror_axes=axes)
    same = sliding_window(
        net, volume, PATCH, step=step, mirror_axes=axes, batch=1, precision=torch.float16, quick=False
    )
    batched = sliding_window(net, volume, PATCH, step=step, mirror_axes=axes, batch=data.draw(st.integers(2, 9)))

    assert torch.equal(same, expected)
    torch.testing.assert_close(batched, reference(net, volume, step, axes), atol=1e-5, rtol=1e-5)


@FEW
@given(st.data())
def test_a_network_of_slices_is_nnunets_bit_for_bit(data):
    """Slices one by one, tiles within them, mirrored along two axes; the slices' own axis has one tile a slice."""
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(3, 17), st.integers(3, 17)))
    step, axes = data.draw(st.sampled_from([0.5, 0.8])), data.draw(st.sampled_from([(), (0,), (1, 0), (0, 1)]))
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4), nn.Conv2d(4, 3, 3, padding=1)).eval()
    volume, patch = torch.randn(1, *shape), (6, 10)
    expected = stock(net, volume, step=step, mirror_axes=axes, patch=patch)
    asked: list[int] = []
    net.register_forward_hook(lambda _, tiles, __: asked.append(len(tiles[0])))
    found = sliding_window(
        SliceNetwork(net),
        volume,
        (1, *patch),
        step=(1.0, step, step),
        mirror_axes=[axis + 1 for axis in axes],
        batch=1,
        precision=torch.float16,
        quick=False,
    )
    assert torch.equal(found, expected)
    tiles = len(tile_positions((1, *(max(a, b) for a, b in zip(shape[1:], patch, strict=True))), (1, *patch), step))
    assert len(asked) == shape[0] * tiles * 2 ** len(axes)  # each slice once


def reference(net, volume, step, axes):
    """The definition, in double precision, with a weight for every voxel of every tile."""
    size = [max(a, b) for a, b in zip(volume.shape[1:], PATCH, strict=True)]
    low = [(a - b) // 2 for a, b in zip(size, volume.shape[1:], strict=True)]
    inner = (slice(None), *(slice(a, a + n) for a, n in zip(low, volume.shape[1:], strict=True)))
    padded = torch.zeros(len(volume), *size)
    padded[inner] = volume
    sums, total = torch.zeros(3, *size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    weight = compute_gaussian(PATCH, value_scaling_factor=10, device=torch.device("cpu")).double()
    with torch.inference_mode():
        for z, y, x in [[part.start for part in at] for at in tile_positions(size, PATCH, step)]:
            at = (slice(None), slice(z, z + PATCH[0]), slice(y, y + PATCH[1]), slice(x, x + PATCH[2]))
            tile = padded[at][None]
            copies = [
                net(tile),
                *(net(tile.flip([a + 2 for a in m])).flip([a + 2 for a in m]) for m in mirrorings(axes)),
            ]
            sums[at] += torch.stack(copies).double().mean(0)[0] * weight
            total[at[1:]] += weight
    return (sums / total)[inner].float()


def test_tiles_are_asked_in_batches():
    net = Recorder(network())
    sliding_window(net, torch.randn(1, 8, 6, 30), PATCH, batch=3, mirror_axes=(0,))
    assert net.asked == [3, 3, 2, 2]  # five tiles, plain and mirrored


def test_a_batch_too_large_for_the_memory_is_halved_for_good():
    volume, plain = torch.randn(1, 8, 6, 50), network()
    small = Recorder(plain, most=2)
    found = sliding_window(small, volume, PATCH, batch=8)
    assert set(small.asked) == {1, 2} or set(small.asked) == {2}
    assert torch.equal(found, sliding_window(plain, volume, PATCH, batch=2))
    with pytest.raises(torch.OutOfMemoryError):
        sliding_window(Recorder(plain, most=0), volume, PATCH)


def test_the_difference_is_that_of_two_classes():
    net, volume = network(classes=2), torch.randn(1, 9, 9, 12)
    both = sliding_window(net, volume, PATCH, mirror_axes=(1,))
    torch.testing.assert_close(
        sliding_window(net, volume, PATCH, mirror_axes=(1,), difference=True), both[1:] - both[:1]
    )
    with pytest.raises(ConfigError, match="Difference of 3"):
        sliding_window(network(), volume, PATCH, difference=True)


def test_logits_beyond_half_precision_are_no_infinities():
    net, volume = network(), torch.randn(1, 9, 9, 12)
    net[-1].weight.data *= 1e5
    with pytest.raises(RuntimeError, match="inf"):
        stock(net, volume)
    assert sliding_window(net, volume, PATCH).isfinite().all()
    net[-1].bias.data[0] = float("nan")
    with pytest.raises(ModelError, match="NaN"):
        sliding_window(net, volume, PATCH)


@pytest.mark.parametrize("classes", [2, 3])
def test_agreement_of_plain_and_mirrored_passes_is_counted(classes):
    net, volume, agreement = network(classes), torch.randn(1, 9, 14, 23), MirrorAgreement()
    sliding_window(net, volume, PATCH, mirror_axes=(0, 2), watch=agreement, difference=classes == 2)

    by_hand = torch.zeros(classes, 3, dtype=torch.int64)
    with torch.inference_mode():
        padded = nn.functional.pad(volume, (0, 0, 0, 0, 0, 0))
        for at in tile_positions(padded.shape[1:], PATCH):
            tile = padded[(slice(None), *at)][None]
            copies = [net(tile.flip(axes)).flip(axes) for axes in ([], [2], [4], [2, 4])]
            one, other = copies[0].argmax(1), (sum(copies) / 4).argmax(1)
            for row in range(classes):
                here, there = (each == row if row else each > 0 for each in (one, other))
                by_hand[row] += torch.tensor([(here & there).sum(), here.sum(), there.sum()])
    assert torch.equal(agreement.counts, by_hand)
    assert by_hand[0, 0] < by_hand[0, 1]
    labels = LabelMap({f"l{n}": n for n in range(1, classes)})
    assert agreement.overlaps(labels)["l1"] == Overlap(*by_hand[1].tolist())
    assert MirrorAgreement().overlaps(labels)["l1"] == Overlap(0, 0, 0)


class Balls(nn.Module):
    """Finds what is brighter than a threshold, and looks at the neighbourhood."""

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        near = nn.functional.avg_pool3d(x, 3, 1, 1, count_include_pad=False) - self.threshold
        return torch.cat([-near, near], 1)


def body() -> torch.Tensor:
    volume = torch.full((1, 20, 24, 40), -2.0)
    volume[:, 5:15, 3:20, 8:20] = torch.randn(10, 17, 12)
    volume[:, 0, 0, 39] -= 0.3  # below the bound: no air
    return volume


@pytest.mark.parametrize("difference", [False, True])
def test_air_is_asked_once(difference):
    volume, net = body(), Recorder(Balls())
    whole = sliding_window(net, volume, PATCH, mirror_axes=(0,), difference=difference)
    before, net.asked = sum(net.asked), []
    part = sliding_window(net, volume, PATCH, mirror_axes=(0,), difference=difference, air=Air(-2.0))

    tiles = tile_positions(volume.shape[1:], PATCH)
    skipped = constant_tiles(volume, tiles, -2.0)
    assert all((volume[0][tiles[n]] == -2.0).all() == (n in skipped) for n in range(len(tiles)))
    assert len(skipped) > len(tiles) // 4
    assert sum(net.asked) == before - 2 * len(skipped) + 2
    assert torch.equal(part, whole)


class OneSided(nn.Module):
    """Finds something in the first half of a tile: mirrored copies outvote it."""

    def forward(self, x):
        there = torch.full_like(x, -9.0)
        there[:, :, : x.shape[2] // 2] = 1.0
        return torch.cat([torch.zeros_like(x), there], 1)


@pytest.mark.parametrize("inner", [Balls(-3.0), OneSided()])
def test_what_the_network_finds_in_air_is_found_and_watched(inner):
    volume, net, agreement, other = body(), Recorder(inner), MirrorAgreement(), MirrorAgreement()
    whole = sliding_window(net, volume, PATCH, mirror_axes=(0,), watch=other)
    before, net.asked = sum(net.asked), []
    found = sliding_window(net, volume, PATCH, mirror_axes=(0,), air=Air(-2.0), watch=agreement)
    assert torch.equal(found, whole)
    assert torch.equal(agreement.counts, other.counts)
    assert sum(net.asked) < 0.8 * before


def test_a_network_that_gives_its_input_back_does_not_harm_the_volume():
    volume = torch.randn(1, 8, 6, 15)
    before = volume.clone()
    found = sliding_window(nn.Identity(), volume, PATCH, mirror_axes=(0, 1, 2))
    torch.testing.assert_close(found, before)
    assert torch.equal(volume, before)


def test_memory_is_lent_once():
    with allocator.reused_memory(torch.device("cpu")), allocator.reused_memory(torch.device("cpu")):
        torch.randn(10**6)
    assert allocator._lent == 0


def test_what_cannot_be_is_refused():
    volume, net = torch.zeros(1, 8, 6, 10), network()
    for changed in ({"step": 0.0}, {"step": 1.5}, {"batch": 0}, {"mirror_axes": (3,)}, {"mirror_axes": (0, 0)}):
        with pytest.raises(ConfigError):
            sliding_window(net, volume, PATCH, **changed)
    with pytest.raises(ConfigError, match="Patch"):
        sliding_window(net, volume, (8, 8))
    with pytest.raises(DataError):
        sliding_window(net, volume[0], PATCH)
    with pytest.raises(ConfigError, match="deep supervision"):
        sliding_window(nn.AvgPool3d(2), volume, PATCH)
    with pytest.raises(ConfigError, match="Air"):
        Air(float("nan"))
