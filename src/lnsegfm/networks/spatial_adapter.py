"""A small residual module on the last features of a network, before its head (FSEFT's spatial adapter).

It is not linear, so no plain network can take it in: an adapted model names one of the classes of `ADAPTED` in its
plans, which are the plain ones with the module in its place. Their other weights keep the plain names.

Silva-Rodriguez et al., Medical Image Analysis 2025, https://arxiv.org/abs/2303.17051.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from dynamic_network_architectures.architectures import unet
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lnsegfm.errors import ConfigError
from lnsegfm.networks.added import Added
from lnsegfm.networks.cards import last_layer

NAME = "spatial_adapter"
ADAPTED = {
    "PlainConvUNet": f"{__name__}.PlainConvUNet",
    "ResidualEncoderUNet": f"{__name__}.ResidualEncoderUNet",
    "SwinUNETR": "lnsegfm.networks.spatial_adapter_swin.SpatialAdapterSwinUNETR",
}
"""Class of a plain network -> import path of the same network with an adapter. MONAI takes seconds to load, so the
class that needs it has a module of its own."""


class SpatialAdapterModule(Added):
    """x + up(LeakyReLU(down(x))) with two 3x3x3 convolutions; ``up`` is zero at the start, so nothing changes.

    Args:
        channels: Channels of x, which is (B, channels, D, H, W).
        width: Channels in between.
        generator: Of the first weights of ``down``, drawn as He et al. do for this nonlinearity.
    """

    def __init__(self, channels: int, width: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.down = nn.Conv3d(channels, width, 3, padding=1)
        self.nonlinearity = nn.LeakyReLU()
        self.up = nn.Conv3d(width, channels, 3, padding=1)
        nn.init.kaiming_normal_(self.down.weight, a=0.01, generator=generator)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            if zero is not None:
                nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """The features, changed."""
        changed: Tensor = x + self.up(self.nonlinearity(self.down(x)))
        return changed


def attach(
    network: nn.Module,
    width: int | None = None,
    head: Sequence[nn.Module] | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Put an adapter before the head, unless the network has one; give its width.

    Args:
        network: Any network whose head takes (B, C, D, H, W).
        width: Channels in between; None takes as many as the head sees.
        head: Names the head of a network that has no card; the last of it sees the features.
        generator: Of the first weights.

    Raises:
        ConfigError: The head is no 3D convolution, or none was named.
    """
    if head is not None and not head:
        raise ConfigError("Head: none is named. Name the layer before which the adapter is to stand.")
    layer = last_layer(network, head)
    there = getattr(layer, NAME, None)
    if isinstance(there, SpatialAdapterModule):
        return there.down.out_channels
    if not isinstance(layer, (_ConvNd, _ConvTransposeNd)) or layer.weight.dim() != 5:
        raise ConfigError(
            f"Head {type(layer).__name__}: a spatial adapter stands before a 3D convolution. Use another method."
        )
    width = width or layer.in_channels
    adapter = SpatialAdapterModule(layer.in_channels, width, generator)
    layer.add_module(NAME, adapter.to(layer.weight.device, layer.weight.dtype))
    layer.register_forward_pre_hook(_adapt)
    return width


def _adapt(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (layer.get_submodule(NAME)(inputs[0]),)


class PlainConvUNet(unet.PlainConvUNet):
    """nnU-Net's U-Net with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)


class ResidualEncoderUNet(unet.ResidualEncoderUNet):
    """nnU-Net's residual encoder U-Net with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)


def adapted_class(path: str) -> str:
    """Import path of a class with an adapter for that of the plain one.

    Raises:
        ConfigError: There is none.
    """
    name = path.rpartition(".")[2]
    if name not in ADAPTED:
        raise ConfigError(f"Network {name}: it has no class with a spatial adapter. Use another method.")
    return ADAPTED[name]
