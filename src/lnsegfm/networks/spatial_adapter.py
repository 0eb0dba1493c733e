"""A small residual module on the last features of a network, before its head (FSEFT's spatial adapter).

It is not linear, so it cannot be merged into a plain network: the plans of an adapted model name one of the classes of
`ADAPTED`, which are the plain ones with the module. Their other weights keep their names.

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
    "SegResNet": "lnsegfm.networks.spatial_adapter_segresnet.SpatialAdapterSegResNet",
    "DynUNet": "lnsegfm.networks.spatial_adapter_monai.SpatialAdapterDynUNet",
    "SegResNetDS": "lnsegfm.networks.spatial_adapter_monai.SpatialAdapterSegResNetDS",
    "STUNet": "lnsegfm.networks.spatial_adapter_published.SpatialAdapterSTUNet",
    "GenesisUNet": "lnsegfm.networks.spatial_adapter_published.SpatialAdapterGenesisUNet",
}
"""Class of a plain network -> import path of the same network with an adapter. MONAI takes seconds to load, so the
class that needs it has a module of its own."""


class SpatialAdapterModule(Added):
    """x + up(LeakyReLU(down(x))) with two 3x3x3 convolutions; ``up`` is zero at the start, so nothing changes.

    Args:
        channels: Channels of x, which is (B, channels, D, H, W).
        width: Channels between the convolutions.
        generator: Of the initial weights of ``down``, by He et al.'s rule for this nonlinearity.
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
        """The adapted features."""
        adapted: Tensor = x + self.up(self.nonlinearity(self.down(x)))
        return adapted


def attach(
    network: nn.Module,
    width: int | None = None,
    head: Sequence[nn.Module] | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Insert an adapter before the head, unless the network has one.

    Args:
        network: Any network whose head takes (B, C, D, H, W).
        width: Channels between the convolutions; None for those of the head's input.
        head: The head of a network that has no card; its last layer takes the features.
        generator: Of the initial weights.

    Returns:
        The width.

    Raises:
        ConfigError: The head is no 3D convolution, or an empty head was given.
    """
    if head is not None and not head:
        raise ConfigError("Head: none is named. Name the layer before which the adapter is inserted.")
    layer = last_layer(network, head)
    present = getattr(layer, NAME, None)
    if isinstance(present, SpatialAdapterModule):
        return present.down.out_channels
    if not isinstance(layer, (_ConvNd, _ConvTransposeNd)) or layer.weight.dim() != 5:
        raise ConfigError(
            f"Head {type(layer).__name__}: a spatial adapter needs a 3D convolution after it. Use another method."
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
    """Import path of the class with an adapter, from that of the plain class.

    Raises:
        ConfigError: There is no such class.
    """
    name = path.rpartition(".")[2]
    if name not in ADAPTED:
        raise ConfigError(f"Network {name}: it has no class with a spatial adapter. Use another method.")
    return ADAPTED[name]
