"""Only what a method trains asks for a gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method
from lnsegfm.networks.cards import decoder_modules, unwrap
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from lnsegfm.networks.role import Role


def freeze(network: nn.Module, method: Method, head: Sequence[nn.Module] | None = None) -> list[NetworkParameter]:
    """Set ``requires_grad`` by role and return what trains. An earlier method's freezing is undone.

    Raises:
        ConfigError: The network has nothing of what the method moves besides its head, or nothing at all.
    """
    parameters = parameters_of(network, head)
    trained = [parameter for parameter in parameters if method.is_trained(parameter)]
    found = {parameter.role for parameter in trained}
    if not found - {Role.HEAD} and (not found or method.trains != {Role.HEAD}):
        wanted = ", ".join(sorted(method.trains - {Role.HEAD})) or Role.HEAD.value
        raise ConfigError(
            f"Method {method.name}: {type(unwrap(network)).__name__} has no parameters of the roles "
            f"it moves ({wanted}). Use a method that finds some there: head, full or dgst."
        )
    for parameter in parameters:
        parameter.tensor.requires_grad_(method.is_trained(parameter))
        if not method.is_trained(parameter):
            parameter.tensor.grad = None  # no optimizer would clear it, and it would count when gradients are clipped
    _hold_running_statistics(unwrap(network), method)
    return trained


def _hold_running_statistics(network: nn.Module, method: Method) -> None:
    """They belong to a norm's scale and move when it does, or when it would if the norm had one."""
    decoder = {id(module) for outer in decoder_modules(network) for module in outer.modules()}
    for module in network.modules():
        if isinstance(module, _NormBase) and module.track_running_stats:
            for key in [key for key, hook in module._forward_pre_hooks.items() if hook is _as_in_evaluation]:
                del module._forward_pre_hooks[key]
            scale = NetworkParameter("", nn.Parameter(), Role.NORM_WEIGHT, module, id(module) in decoder)
            if not method.is_trained(scale):
                module.register_forward_pre_hook(_as_in_evaluation)


def _as_in_evaluation(module: nn.Module, _: Any) -> None:
    module.train(False)
