"""Base of the methods whose weights are computed from frozen ones and a few added parameters (LoRA, DoRA, SSF)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.dense import Dense

if TYPE_CHECKING:
    from torch import nn

    from lnsegfm.networks.parameter_roles import NetworkParameter


@dataclass(frozen=True, kw_only=True)
class AddedParameters(Dense):
    """The head trains, and the parameters that the method added; the network's own stay."""

    def is_trained(self, parameter: NetworkParameter) -> bool:
        """Whether it is of the head or was added by this method, not by one that the base came with."""
        from lnsegfm.networks.added import Added
        from lnsegfm.networks.role import Role

        return parameter.role is Role.HEAD or isinstance(parameter.module, Added)

    def _plain_network(self, network: nn.Module) -> nn.Module:
        """The unwrapped network.

        Raises:
            ConfigError: Some of its weights are computed already.
        """
        from lnsegfm.networks.cards import unwrap
        from lnsegfm.networks.reparametrize import is_reparametrized

        network = unwrap(network)
        if is_reparametrized(network):
            raise ConfigError(f"Method {self.name}: the network has adapters already. Call method.merge first.")
        return network
