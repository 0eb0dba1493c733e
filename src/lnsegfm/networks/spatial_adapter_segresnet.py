"""SegResNet with a spatial adapter."""

from __future__ import annotations

from typing import Any

from lnsegfm.networks import seg_res_net
from lnsegfm.networks.spatial_adapter import attach


class SpatialAdapterSegResNet(seg_res_net.SegResNet):
    """MONAI's SegResNet with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)
