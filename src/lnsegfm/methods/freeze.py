"""Freezing: only what is trained requires a gradient, and norms that are frozen keep their running statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lnsegfm.networks.cards import decoder_modules, unwrap
from lnsegfm.networks.parameter_roles import NetworkParameter
from lnsegfm.networks.role import Role

IsTrained = Callable[[NetworkParameter], bool]


def freeze(network: nn.Module, parameters: Sequence[NetworkParameter], is_trained: IsTrained) -> None:
    """Set ``requires_grad`` of every parameter. An earlier freezing is undone.

    Args:
        network: The network.
        parameters: All of its parameters.
        is_trained: Whether a parameter trains.
    """
    for parameter in parameters:
        trained = is_trained(parameter)
        parameter.tensor.requires_grad_(trained)
        if not trained:
            parameter.tensor.grad = None  # no optimizer would clear it, and clipping would count it
    _freeze_running_statistics(unwrap(network), is_trained)


def _freeze_running_statistics(network: nn.Module, is_trained: IsTrained) -> None:
    """They belong to a norm's scale and change when it trains, or when it would if the norm had one."""
    decoder = {id(module) for outer in decoder_modules(network) for module in outer.modules()}
    for module in network.modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            for key in [key for key, hook in module._forward_pre_hooks.items() if hook is _evaluate]:
                del module._forward_pre_hooks[key]
            scale = NetworkParameter("", nn.Parameter(), Role.NORM_WEIGHT, module, id(module) in decoder)
            if not is_trained(scale):
                module.register_forward_pre_hook(_evaluate)


def _evaluate(module: nn.Module, _: Any) -> None:
    module.train(False)
