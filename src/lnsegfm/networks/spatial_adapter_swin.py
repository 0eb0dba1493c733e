"""SwinUNETR with a spatial adapter."""

from __future__ import annotations

from typing import Any

from lnsegfm.networks import swin_unetr
from lnsegfm.networks.spatial_adapter import attach


class SpatialAdapterSwinUNETR(swin_unetr.SwinUNETR):
    """MONAI's SwinUNETR with a spatial adapter of ``adapter_width`` channels."""

    def __init__(self, *args: Any, adapter_width: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attach(self, adapter_width)
