from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lnsegfm.networks.layout import KernelLayout
from tests.networks.kernels import kernel_indices

small = st.integers(1, 4)
taps = st.lists(st.integers(1, 3), min_size=0, max_size=3)
CONVOLUTIONS: dict[int, tuple[Any, Any]] = {
    1: (nn.Conv1d, nn.ConvTranspose1d),
    2: (nn.Conv2d, nn.ConvTranspose2d),
    3: (nn.Conv3d, nn.ConvTranspose3d),
}


@st.composite
def layers(draw: st.DrawFn) -> Any:
    groups, inputs, outputs, kernel = draw(small), draw(small), draw(small), draw(taps)
    if not kernel:
        return nn.Linear(inputs, outputs)
    cls = CONVOLUTIONS[len(kernel)][draw(st.booleans())]
    return cls(groups * inputs, groups * outputs, tuple(kernel), groups=groups)


@settings(max_examples=150, deadline=None)
@given(layers(), st.booleans())
def test_rows_are_the_output_filters_and_unrows_their_inverse(layer: Any, channels_last: bool) -> None:
    weight = layer.weight.detach()
    if channels_last and weight.dim() in (4, 5):
        weight = weight.to(memory_format=torch.channels_last if weight.dim() == 4 else torch.channels_last_3d)
    layout = KernelLayout.of(layer)
    rows = layout.rows(weight)

    explicit = weight.numpy().reshape(-1)[kernel_indices(layer, tuple(weight.shape))]
    np.testing.assert_array_equal(rows.numpy(), explicit)
    np.testing.assert_array_equal(layout.unrows(rows, weight).numpy(), weight.numpy())
    every = torch.arange(rows.shape[1]).expand(rows.shape)
    np.testing.assert_array_equal(layout.places(every, weight).numpy(), kernel_indices(layer, tuple(weight.shape)))


@settings(max_examples=100, deadline=None)
@given(layers(), st.data())
def test_one_row_reaches_one_output_channel(layer: Any, data: st.DataObject) -> None:
    rows = torch.zeros_like(KernelLayout.of(layer).rows(layer.weight))
    kernel = data.draw(st.integers(0, rows.shape[0] - 1))
    rows[kernel] = 1.0
    with torch.no_grad():
        layer.weight.copy_(KernelLayout.of(layer).unrows(rows, layer.weight))
        layer.bias.zero_()
        spatial = [4] * (layer.weight.dim() - 2)
        channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        output = layer(torch.ones(1, channels, *spatial))
    reached = output.flatten(2).sum(2)[0] if spatial else output[0]
    assert reached.nonzero().flatten().tolist() == [kernel]


def test_rows_of_a_convolution_are_a_view() -> None:
    weight = torch.randn(4, 3, 3, 3, 3)
    assert KernelLayout().rows(weight).data_ptr() == weight.data_ptr()


@pytest.mark.parametrize(
    ("layer", "layout"),
    [
        (nn.Conv3d(4, 6, 3, groups=2), KernelLayout()),
        (nn.ConvTranspose3d(4, 6, 2, groups=2), KernelLayout(transposed=True, groups=2)),
        (nn.ConvTranspose2d(4, 6, 2), KernelLayout(transposed=True)),
        (nn.Linear(4, 6), KernelLayout()),
    ],
)
def test_layout_follows_the_module(layer: Any, layout: KernelLayout) -> None:
    assert KernelLayout.of(layer) == layout
