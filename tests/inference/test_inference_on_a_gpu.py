"""Sliding window and export on a simulated GPU: nothing mixes devices, and the host waits no oftener for more tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lnsegfm.inference.logits_to_mask import InversePreprocessing, mask_from_logits, probabilities_from_logits
from lnsegfm.inference.mirror_agreement import MirrorAgreement
from lnsegfm.inference.sliding_window import BATCH, Air, sliding_window
from lnsegfm.inference.tile_forward import SliceNetwork
from lnsegfm.inference.tile_positions import tile_positions
from tests.simulated_gpu import SimulatedGPU, simulated_gpu

PATCH = (8, 8, 8)
AIR = -1.0


def network(classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, classes, 1))


def volume(depth: int) -> Tensor:
    torch.manual_seed(1)
    image = torch.rand(1, depth, 12, 12)
    image[:, : depth // 2] = AIR
    return image


def predicted(depth: int, sums_on: str) -> tuple[Tensor, SimulatedGPU]:
    with simulated_gpu() as gpu:
        agreement = MirrorAgreement()
        logits = sliding_window(
            network(),
            volume(depth),
            PATCH,
            mirror_axes=(0, 2),
            device="cuda",
            accumulate_on=sums_on,
            air=Air(AIR),
            watch=agreement,
        )
        assert logits.device.type == sums_on
        assert agreement.counts is not None
        assert agreement.counts.is_cuda
    return logits, gpu


@pytest.mark.parametrize("sums_on", ["cuda", "cpu"])
def test_logits_are_those_of_the_cpu(sums_on: str) -> None:
    expected = sliding_window(network(), volume(16), PATCH, mirror_axes=(0, 2), quick=False)

    found, _ = predicted(16, sums_on)

    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_slices_are_those_of_the_cpu() -> None:
    torch.manual_seed(0)
    planar = SliceNetwork(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1)))
    how = {"step": (1.0, 0.5, 0.5), "mirror_axes": (1, 2), "air": Air(AIR)}
    expected = sliding_window(planar, volume(6), (1, 8, 8), quick=False, **how)
    with simulated_gpu():
        found = sliding_window(planar, volume(6), (1, 8, 8), device="cuda", accumulate_on="cuda", **how)
        assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=1e-5)


def test_the_host_waits_as_often_for_many_tiles_as_for_few() -> None:
    _, few = predicted(24, "cuda")
    _, many = predicted(72, "cuda")

    assert few.to_host == many.to_host == {}
    fixed = {name: number for name, number in few.reads.items() if name != "bincount"}  # one for each batch, of counts
    assert fixed == {name: number for name, number in many.reads.items() if name != "bincount"}


def test_a_batch_of_tiles_is_copied_once_and_one_of_air_not_at_all() -> None:
    _, few = predicted(24, "cuda")
    _, many = predicted(40, "cuda")
    more = len(tile_positions((40, 12, 12), PATCH)) - len(tile_positions((24, 12, 12), PATCH))

    assert 0 < many.to_gpu["to"] - few.to_gpu["to"] <= more // BATCH


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_mask_comes_to_the_host_slab_by_slab_and_nothing_else_does(classes: int) -> None:
    torch.manual_seed(2)
    logits = torch.randn(classes, 6, 7, 8)
    way = InversePreprocessing((9, 10, 11), (9, 10, 11), ((0, 9), (0, 10), (0, 11)))
    limit = 4 * 4 * 110 * 4  # a few slices a slab
    expected = mask_from_logits(logits, way, limit_bytes=limit)
    with simulated_gpu() as gpu:
        found = mask_from_logits(logits.to("cuda"), way, limit_bytes=limit)

    assert np.array_equal(found, expected)
    assert gpu.reads == {}
    assert 1 < gpu.to_host["to"] < 9


def test_probabilities_are_those_of_the_cpu() -> None:
    torch.manual_seed(3)
    logits = torch.randn(3, 6, 7, 8)
    way = InversePreprocessing((9, 10, 11), (9, 10, 11), ((0, 9), (0, 10), (0, 11)))
    with simulated_gpu() as gpu:
        found = probabilities_from_logits(logits.to("cuda"), way)

    assert np.array_equal(found, probabilities_from_logits(logits, way))
    assert gpu.reads == {}
