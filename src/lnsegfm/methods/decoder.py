"""Decoder only: the features stay, what is made of them moves."""

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
    """Everything between encoder and head moves, and the head.

    A network's card says what its decoder is; a network without one is refused.
    """

    name = "decoder"
    summary = "the decoder and the head move, the encoder stays"
    source = "as in Silva-Rodriguez et al., Med. Image Anal. 2025, arXiv 2303.17051"
    trains = frozenset(Role)

    def is_trained(self, parameter: NetworkParameter) -> bool:
        """Whether it belongs to decoder or head."""
        return parameter.in_decoder or parameter.role is Role.HEAD

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:  # noqa: ARG002
        """Add nothing; refuse a network whose decoder is not known."""
        from lnsegfm.networks.cards import decoder_modules, unwrap

        if not decoder_modules(network):
            raise ConfigError(
                f"Method {self.name}: which layers of {type(unwrap(network)).__name__} are its decoder is not known. "
                "Use a method that goes by kinds of layers: head, affine or dgst."
            )
