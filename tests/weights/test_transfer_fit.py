from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor, nn
from torch.nn.functional import conv3d

from lnsegfm.testing.tiny_networks import UNET
from lnsegfm.weights.fit_tensor import (
    fit_channels,
    fit_convolution,
    fit_extent,
    fit_positions,
    fit_table,
    regular_window,
    same_family,
)
from lnsegfm.weights.transfer import transfer

LABELS = ["background", "node"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("old", "new"), list(itertools.product([1, 2, 3, 5], repeat=2)))
def test_all_channels_together_weigh_what_they_weighed(old, new):
    weight = randn(4, old, 3, 3, 3)
    fitted = fit_channels(weight, new)
    assert fitted.shape == (4, new, 3, 3, 3)
    assert fitted.dtype == weight.dtype
    torch.testing.assert_close(fitted.sum(1), weight.sum(1))
    assert torch.equal(fitted, fitted[:, :1].expand_as(fitted))


extents = st.lists(st.integers(1, 5), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(old=extents, new=extents)
def test_a_padded_kernel_is_the_same_function_and_a_cropped_one_its_middle(old, new):
    weight, image = randn(2, 3, *old), randn(1, 3, 9, 9, 9, seed=1)
    fitted = fit_extent(weight, new)
    if any((a - b) % 2 for a, b in zip(old, new, strict=True)):
        assert fitted is None
        return
    assert fitted.shape == (2, 3, *new)
    if all(a <= b for a, b in zip(old, new, strict=True)):
        interior = [slice((b - a) // 2, 9 - a + 1 - (b - a) // 2) for a, b in zip(old, new, strict=True)]
        torch.testing.assert_close(conv3d(image, fitted), conv3d(image, weight)[:, :, *interior])
    for place in itertools.product(*(range(n) for n in new)):
        there = [p + (a - b) // 2 for p, a, b in zip(place, old, new, strict=True)]
        inside = all(0 <= p < a for p, a in zip(there, old, strict=True))
        expected = weight[:, :, *there] if inside else torch.zeros(2, 3)
        assert torch.equal(fitted[:, :, *place], expected)


def test_cropping_undoes_padding():
    weight = randn(2, 3, 1, 3, 3)
    assert torch.equal(fit_extent(fit_extent(weight, (3, 5, 3)), (1, 3, 3)), weight)


def test_kernels_of_another_number_of_axes_have_no_middle():
    assert fit_extent(randn(2, 3, 3, 3), (3, 3, 3)) is None


FITTED: dict[str, tuple[tuple[int, ...], nn.Module, tuple[str, ...]]] = {
    "kernel": ((4, 2, 1, 3, 3), nn.Conv3d(2, 4, 3), ("kernel 1x3x3 -> 3x3x3: centred",)),
    "channels": ((4, 1, 3, 3, 3), nn.Conv3d(2, 4, 3), ("input channels 1 -> 2: repeated and halved",)),
    "both": (
        (4, 1, 5, 5, 5),
        nn.Conv3d(2, 4, 3),
        ("input channels 1 -> 2: repeated and halved", "kernel 5x5x5 -> 3x3x3: centred"),
    ),
    "grouped": ((4, 1, 1, 1, 1), nn.Conv3d(4, 4, 3, groups=4), ("kernel 1x1x1 -> 3x3x3: centred",)),
    "strided": ((4, 2, 1, 3, 3), nn.Conv3d(2, 4, 3, stride=2), ("kernel 1x3x3 -> 3x3x3: centred",)),
    "pointwise": ((4, 2, 3, 3, 3), nn.Conv3d(2, 4, 1), ("kernel 3x3x3 -> 1x1x1: centred",)),
    "patches in one axis": ((4, 2, 2, 1, 2), nn.Conv3d(2, 4, (2, 3, 2), stride=2), ("kernel 2x1x2 -> 2x3x2: centred",)),
    "2D": ((4, 2, 3, 3), nn.Conv2d(2, 4, 5), ("kernel 3x3 -> 5x5: centred",)),
}
LEFT: dict[str, tuple[tuple[int, ...], nn.Module]] = {
    "odd difference": ((4, 2, 2, 3, 3), nn.Conv3d(2, 4, 3)),
    "fewer axes": ((4, 2, 3, 3), nn.Conv3d(2, 4, 3)),
    "other outputs": ((5, 2, 1, 3, 3), nn.Conv3d(2, 4, 3)),
    "other inputs": ((4, 3, 3, 3, 3), nn.Conv3d(2, 4, 3)),
    "transposed": ((2, 4, 1, 2, 2), nn.ConvTranspose3d(2, 4, (3, 2, 2), stride=(3, 2, 2))),
    "transposed, overlapping": ((2, 4, 1, 1, 1), nn.ConvTranspose3d(2, 4, 3)),
    "transposed channels": ((4, 1, 3, 3, 3), nn.ConvTranspose3d(4, 2, 3)),
    "patches": ((4, 2, 4, 4, 4), nn.Conv3d(2, 4, 2, stride=2)),
    "grouped inputs": ((4, 1, 3, 3, 3), nn.Conv3d(4, 4, 3, groups=2)),
    "linear": ((4, 1), nn.Linear(2, 4)),
}


@pytest.mark.parametrize("name", FITTED)
def test_a_convolution_that_is_fitted(name):
    shape, module, notes = FITTED[name]
    fitted = fit_convolution(randn(*shape), module.weight, module, base_channels=1, channels=2)
    assert fitted is not None
    assert fitted.value.shape == module.weight.shape
    assert fitted.notes == notes


@pytest.mark.parametrize("name", LEFT)
def test_a_convolution_that_is_left_alone(name):
    shape, module = LEFT[name]
    assert fit_convolution(randn(*shape), module.weight, module, base_channels=1, channels=2) is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (1, 2, "repeated and halved"),
        (1, 3, "repeated and divided by 3"),
        (4, 1, "summed"),
        (4, 2, "summed, halved and repeated"),
        (2, 3, "summed, divided by 3 and repeated"),
    ],
)
def test_what_is_said_of_channels(old, new, words):
    module = nn.Conv3d(new, 4, 1)
    fitted = fit_convolution(randn(4, old, 1, 1, 1), module.weight, module, base_channels=old, channels=new)
    assert fitted.notes == (f"input channels {old} -> {new}: {words}",)


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
def test_a_network_with_flat_kernels_is_the_same_function_with_cubic_ones(kind):
    """Zeros around a kernel and zeros around the image: the same output up to its border, deep supervision too."""
    blocks = {"n_conv_per_stage": 1} if kind is PlainConvUNet else {"n_blocks_per_stage": 1}
    flat: dict[str, Any] = {"kernel_sizes": [(1, 3, 3), (1, 3, 3), (3, 3, 3)]}
    torch.manual_seed(0)
    base = kind(**UNET | flat | blocks)
    network = kind(**UNET | {"input_channels": 2} | blocks)
    report = transfer(
        base.state_dict(), network, base_labels=LABELS, labels=LABELS, base_channels=1, channels=2, minimum=1
    )
    image = randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        for one, other in zip(base(image), network(image.expand(-1, 2, -1, -1, -1)), strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    first = report.groups[0].notes
    assert first == ("input channels 1 -> 2: repeated and halved", "kernel 1x3x3 -> 3x3x3: centred")


windows = st.lists(st.integers(1, 5), min_size=2, max_size=3).flatmap(
    lambda old: st.tuples(st.just(tuple(old)), st.tuples(*(st.integers(1, 5) for _ in old)))
)


def sizes(window: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(2 * edge - 1 for edge in window)


@settings(max_examples=80, deadline=None)
@given(pair=windows, heads=st.integers(1, 3))
def test_positions_are_interpolated_as_scipy_does(pair, heads):
    old, new = pair
    table = randn(int(np.prod(sizes(old))), heads)
    fitted = fit_positions(table, old, new)
    # where an offset of the new window lies in the old table: the ends on the ends, 0 in the middle
    places = [
        np.linspace(0, 2 * a - 2, 2 * b - 1) if b > 1 else np.array([a - 1.0]) for a, b in zip(old, new, strict=True)
    ]
    grid = np.stack(np.meshgrid(*places, indexing="ij"))
    for head in range(heads):
        expected = map_coordinates(table[:, head].double().numpy().reshape(sizes(old)), grid, order=1)
        np.testing.assert_allclose(fitted[:, head].numpy(), expected.ravel(), atol=1e-6)
    if old == new:
        assert torch.equal(fitted, table)


@settings(max_examples=60, deadline=None)
@given(pair=windows)
def test_a_table_linear_in_the_offset_stays_linear(pair):
    old, new = pair
    slopes = torch.tensor([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]])[:, : len(old)]  # (heads, axes), over the whole window

    def linear(window: tuple[int, ...]) -> Tensor:
        axes = [torch.linspace(-1, 1, size) if size > 1 else torch.zeros(1) for size in sizes(window)]
        offsets = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, -2)
        return offsets @ slopes.T + 0.1

    flattened = [axis for axis, edge in enumerate(old) if edge == 1]  # such a base knows of no slope there
    slopes[:, flattened] = 0
    torch.testing.assert_close(fit_positions(linear(old), old, new), linear(new))


@pytest.mark.parametrize(
    ("offsets", "axes", "window"),
    [
        (2197, 3, (7, 7, 7)),
        (729, 3, (5, 5, 5)),
        (729, 2, (14, 14)),
        (169, 2, (7, 7)),
        (1, 3, (1, 1, 1)),
        (169, 3, None),
        (8, 3, None),
        (1183, 3, None),
        (127**3, 3, (64, 64, 64)),
    ],
)
def test_windows_are_told_from_the_length_of_a_table(offsets, axes, window):
    assert regular_window(offsets, axes) == window


class Told(nn.Module):
    def __init__(self, window_size: object) -> None:
        super().__init__()
        self.window_size = window_size


@pytest.mark.parametrize(
    ("old", "new", "module", "note"),
    [
        (2197, 729, nn.Module(), "7 -> 5"),
        (169, 81, nn.Module(), "7 -> 5"),
        (729, 2197, nn.Module(), "5 -> 7"),
        (729, 81, nn.Module(), "14 -> 5"),  # 729 is a cube too, 81 is none
        (729, 1, nn.Module(), "5 -> 1"),  # both are cubes and squares
        (2197, 729, Told(5), "7 -> 5"),
        (2197, 729, Told((5, 5, 5)), "7 -> 5"),
        (2197, 13 * 13 * 7, Told((7, 7, 4)), "7 -> 7x7x4"),
        (729, 15 * 3, Told([8, 2]), "14 -> 8x2"),
        (729, 81, Told((5, 5)), "14 -> 5"),
        (13 * 13 * 7, 729, Told((5, 5, 5)), None),
        (2197, 13 * 13 * 7, nn.Module(), None),
        (2197, 729, Told((4, 4, 4)), None),
    ],
)
def test_which_windows_are_taken(old, new, module, note):
    fitted = fit_table(randn(old, 2), torch.zeros(new, 2), module)
    if note is None:
        assert fitted is None
        return
    assert fitted.value.shape == (new, 2)
    assert fitted.notes == (f"positions of window {note}: interpolated",)


@pytest.mark.parametrize("shape", [(2197, 3), (2197,), (2197, 2, 1)])
def test_other_heads_are_not_interpolated(shape):
    assert fit_table(randn(*shape), torch.zeros(729, 2), nn.Module()) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (torch.float16, torch.float32, True),
        (torch.int64, torch.uint8, True),
        (torch.float32, torch.int64, False),
        (torch.bool, torch.uint8, False),
        (torch.complex64, torch.float32, False),
    ],
)
def test_types_of_one_family(one, other, same):
    assert same_family(one, other) is same_family(other, one) is same
