"""Scale and shift of features (SSF)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.dense import Dense
from lnsegfm.methods.method import setting
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch import nn

    from lnsegfm.networks.parameter_roles import NetworkParameter

BIAS_OF = {"weight": "bias", "in_proj_weight": "in_proj_bias"}


@dataclass(frozen=True, kw_only=True)
class SSF(Dense):
    """What every layer and norm gives is scaled and shifted, channel by channel; the factors and the head train.

    y = s (W x + b) + t is computed as (s W) x + (s b + t), so that it ends in plain weights. A layer without a bias is
    scaled only.
    """

    name = "ssf"
    summary = "the output of every layer and norm is scaled and shifted; scales, shifts and the head move"
    source = "Lian et al., NeurIPS 2022, arXiv 2210.08823"
    trains = frozenset({Role.HEAD, Role.ADAPTER})
    training = TrainingDefaults(lr=3e-3, lr_grid=(3e-4, 1e-3, 3e-3))

    rule: str = setting("adamw", "adamw or sgd (nnU-Net's)")

    def is_trained(self, parameter: NetworkParameter) -> bool:
        """Whether it trains: head, scales and shifts, but no adapter that the base came with."""
        from lnsegfm.networks.added import Added

        return parameter.role is Role.HEAD or isinstance(parameter.module, Added)

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:
        """Scale weights, scale and shift biases; by 1 and 0 at first."""
        from lnsegfm.networks.cards import unwrap
        from lnsegfm.networks.parameter_roles import parameters_of
        from lnsegfm.networks.reparametrize import (
            Scale,
            Scaled,
            Shifted,
            is_reparametrized,
            owners_of,
            reparametrize,
        )

        network = unwrap(network)
        if is_reparametrized(network):
            raise ConfigError(f"Method {self.name}: the network has adapters already. Call method.merge first.")
        owners = owners_of(network)
        parameters = parameters_of(network, head)
        biases = {id(parameter.tensor) for parameter in parameters if parameter.role in (Role.BIAS, Role.NORM_BIAS)}
        pairs = []
        for parameter in parameters:
            if parameter.role in (Role.WEIGHT, Role.NORM_WEIGHT):
                holders = owners[id(parameter.tensor)]
                found = [getattr(module, BIAS_OF.get(name, ""), None) for module, name in holders]
                own = [bias for bias in found if bias is not None and id(bias) in biases]
                biases -= {id(bias) for bias in own}
                pairs.append((parameter, holders, own))
        for parameter, holders, own in pairs:
            scale = Scale(parameter.tensor.detach(), parameter.layout)
            reparametrize(holders, Scaled(parameter.layout, scale))
            for bias in own:
                reparametrize(owners[id(bias)], Shifted(bias.detach(), scale))
