"""MONAI's DynUNet and SegResNetDS with a spatial adapter."""

from __future__ import annotations

from typing import Any

from lnsegfm.networks import dyn_unet, seg_res_net_ds
from lnsegfm.networks.spatial_adapter import attach


class SpatialAdapterDynUNet(dyn_unet.DynUNet):
    """MONAI's DynUNet with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)


class SpatialAdapterSegResNetDS(seg_res_net_ds.SegResNetDS):
    """MONAI's SegResNetDS with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)
