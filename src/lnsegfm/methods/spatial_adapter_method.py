"""A small residual module on the decoder's last features (FSEFT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lnsegfm.errors import ConfigError
from lnsegfm.methods.dense import Dense
from lnsegfm.methods.method import require_seed, setting
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class SpatialAdapter(Dense):
    """Two 3x3x3 convolutions in a residual module on the last features train, and the head; the network is frozen.

    The plans of the adapted model name a class of this package: the network with this module.

    Args:
        width: Channels between the two convolutions; those of the head's input unless given.
        seed: Of the module's initial weights.
    """

    name = "spatial-adapter"
    summary = "a small residual module before the head trains, and the head (FSEFT)"
    source = "Silva-Rodriguez et al., Med. Image Anal. 2025, arXiv 2303.17051"
    trains = frozenset({Role.HEAD, Role.ADAPTER})
    training = TrainingDefaults(lr=3e-3, lr_grid=(3e-4, 1e-3, 3e-3))
    share = 0.186

    width: int | None = setting(None, "channels in between; those of the head's input unless given")
    rule: str = setting("adamw", "adamw or sgd (nnU-Net's)")
    seed: int = setting(0, "of the initial weights")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width is not None and self.width < 1:
            raise ConfigError(f"width {self.width}: at least one channel is needed. Use for example 16.")
        require_seed(self.seed)

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:
        """Insert the module before the head, unless the base has one, which is then trained further."""
        import torch

        from lnsegfm.networks.spatial_adapter import attach

        attach(network, self.width, head, torch.Generator().manual_seed(self.seed))

    def architecture(self, class_path: str, arguments: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
        """The network class with the module."""
        from lnsegfm.networks.spatial_adapter import adapted_class

        if "adapter_width" in arguments:
            return class_path, arguments
        return adapted_class(class_path), {**arguments, "adapter_width": self.width}
