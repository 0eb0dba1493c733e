"""Networks of published models with a spatial adapter."""

from __future__ import annotations

from typing import Any

from lnsegfm.networks import genesis_unet, stu_net
from lnsegfm.networks.spatial_adapter import attach


class SpatialAdapterSTUNet(stu_net.STUNet):
    """STU-Net with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)


class SpatialAdapterGenesisUNet(genesis_unet.GenesisUNet):
    """The U-Net of Models Genesis with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)
