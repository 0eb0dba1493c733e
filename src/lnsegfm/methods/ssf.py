"""Scale and shift of features (SSF)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.methods.added_parameters import AddedParameters
from lnsegfm.methods.method import setting
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch import nn


BIAS_OF = {"weight": "bias", "in_proj_weight": "in_proj_bias"}


@dataclass(frozen=True, kw_only=True)
class SSF(AddedParameters):
    """The output of every layer and norm is scaled and shifted, channel by channel; scales, shifts and the head train.

    y = s (W x + b) + t is computed as (s W) x + (s b + t), so that it can be merged into plain weights. A layer without
    a bias is scaled only.
    """

    name = "ssf"
    summary = "the output of every layer and norm is scaled and shifted; scales, shifts and the head train"
    source = "Lian et al., NeurIPS 2022, arXiv 2210.08823"
    trains = frozenset({Role.HEAD, Role.ADAPTER})
    training = TrainingDefaults(lr=3e-3, lr_grid=(3e-4, 1e-3, 3e-3))

    rule: str = setting("adamw", "adamw or sgd (nnU-Net's)")

    def attach(self, network: nn.Module, head: Sequence[nn.Module] | None = None) -> None:
        """Scale weights, scale and shift biases; by 1 and 0 at the start."""
        from lnsegfm.networks.computed_weights import Scale, Scaled, Shifted
        from lnsegfm.networks.parameter_roles import parameters_of
        from lnsegfm.networks.reparametrize import owners_of, reparametrize

        network = self._plain_network(network)
        owners = owners_of(network)
        parameters = parameters_of(network, head)
        biases = {id(parameter.tensor) for parameter in parameters if parameter.role in (Role.BIAS, Role.NORM_BIAS)}
        pairs = []
        for parameter in parameters:
            if parameter.role in (Role.WEIGHT, Role.NORM_WEIGHT):
                holders = owners[id(parameter.tensor)]
                candidates = [getattr(module, BIAS_OF.get(name, ""), None) for module, name in holders]
                own = [bias for bias in candidates if bias is not None and id(bias) in biases]
                biases -= {id(bias) for bias in own}
                pairs.append((parameter, holders, own))
        for parameter, holders, own in pairs:
            scale = Scale(parameter.tensor.detach(), parameter.layout)
            reparametrize(holders, Scaled(parameter.layout, scale))
            for bias in own:
                reparametrize(owners[id(bias)], Shifted(bias.detach(), scale))
