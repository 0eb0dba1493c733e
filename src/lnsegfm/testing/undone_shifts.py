"""Shifts without effect: those of a layer whose output goes straight into a norm, which subtracts the mean again.

Found by watching a forward pass: the tensor that the norm is given is the very one that the layer gave.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.computed_weights import Shifted
from lnsegfm.networks.parameter_roles import KERNELS, NetworkParameter
from lnsegfm.networks.role import Role


def subtracts_the_mean_of_each_channel(norm: nn.Module) -> bool:
    """Whether a norm, in the state in which it just ran, takes a constant of each channel away."""
    if isinstance(norm, _NormBase):
        return norm.training or not norm.track_running_stats
    return isinstance(norm, nn.GroupNorm) and norm.num_groups == norm.num_channels


def undone_layers(network: nn.Module, forward: Callable[[], Any]) -> set[nn.Module]:
    """The layers each of whose outputs in a forward pass went into such a norm."""
    given: list[tuple[nn.Module, Tensor]] = []
    taken: list[tuple[nn.Module, Tensor]] = []
    hooks = []
    for module in unwrap(network).modules():
        if isinstance(module, KERNELS):
            hooks.append(module.register_forward_hook(lambda layer, _, output: given.append((layer, output))))
        elif isinstance(module, (_NormBase, nn.GroupNorm)):
            hooks.append(module.register_forward_hook(lambda norm, inputs, _: taken.append((norm, inputs[0]))))
    with torch.no_grad():
        forward()
    for hook in hooks:
        hook.remove()
    swallowed = {id(tensor) for norm, tensor in taken if subtracts_the_mean_of_each_channel(norm)}
    heard = {layer for layer, output in given if id(output) not in swallowed}
    return {layer for layer, _ in given} - heard


def is_undone(parameter: NetworkParameter, layers: set[nn.Module]) -> bool:
    """Whether a trained tensor is the shift of such a layer, its own or one that was put before it."""
    if parameter.role is Role.BIAS:
        return parameter.module in layers
    if isinstance(parameter.module, Shifted) and parameter.tensor is parameter.module.shift:
        return any(parameter.module in set(layer.modules()) for layer in layers)
    return False
