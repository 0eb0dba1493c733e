"""Decoder only: the encoder is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.dense import Dense
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch import nn

    from lnsegfm.networks.parameter_roles import NetworkParameter


@dataclass(frozen=True, kw_only=True)
class Decoder(Dense):
    """Everything between encoder and head trains, and the head.

    A network's card names its decoder; a network without a card is refused.
    """

    name = "decoder"
    summary = "the decoder and the head train, the encoder is frozen"
    source = "as in Silva-Rodriguez et al., Med. Image Anal. 2025, arXiv 2303.17051"
    trains = frozenset(Role)

    def is_trained(self, parameter: NetworkParameter) -> bool:
        """Whether it belongs to decoder or head."""
        return parameter.in_decoder or parameter.role is Role.HEAD

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:  # noqa: ARG002
        """Add nothing; refuse a network whose decoder is unknown."""
        from lnsegfm.networks.cards import decoder_modules, unwrap

        if not decoder_modules(network):
            raise ConfigError(
                f"Method {self.name}: which layers of {type(unwrap(network)).__name__} are its decoder is not known. "
                "Use a method that selects by kind of layer: head, affine or dgst."
            )
