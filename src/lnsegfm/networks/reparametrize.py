"""Computed weights in a network (`torch.nn.utils.parametrize`): inserting them, merging them into plain weights."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lnsegfm.networks.computed_weights import (
    Factors,
    Reparametrized,
)

_ORDER = "_order_of_parameters"
"""Attribute with the order of a module's parameters while some of them are computed."""


def reparametrize(owners: list[tuple[nn.Module, str]], module: Reparametrized) -> None:
    """Have a module compute a tensor wherever it is used, under each of its names."""
    for owner, name in owners:
        if not hasattr(owner, _ORDER):
            setattr(owner, _ORDER, tuple(owner._parameters))
        parametrize.register_parametrization(owner, name, module, unsafe=True)


def owners_of(network: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """The owners of each parameter: ``id`` of the tensor to its (module, name) pairs."""
    owners: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((module, name))
    return owners


def is_reparametrized(network: nn.Module) -> bool:
    """Whether any weight of a network is computed by one of the kinds."""
    return any(isinstance(module, Reparametrized) for module in network.modules())


@torch.no_grad()
def merge(network: nn.Module) -> dict[str, Factors]:
    """Replace computed weights by plain ones of the same value, in place.

    Returns:
        The factors of each weight, by its plain name.
    """
    names: dict[int, str] = {}
    factors: dict[str, Factors] = {}
    for prefix, module in list(network.named_modules()):
        parametrizations = getattr(module, "parametrizations", None)
        if not isinstance(parametrizations, nn.ModuleDict):
            continue
        for name, steps in list(parametrizations.items()):
            kind = next(steps.children(), None)
            if not isinstance(kind, Reparametrized):
                continue
            original = cast(Tensor, steps.original)
            if id(original) not in names:
                names[id(original)] = f"{prefix}.{name}" if prefix else name
                own = kind.factors()
                factors[names[id(original)]] = own
                original.data.copy_(own.merged(original.detach().cpu()))
            _give_own_class(module)
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        _restore_order(module)
    return factors


def _give_own_class(module: nn.Module) -> None:
    """Give a module a class that no copy of it shares: torch removes properties from the class."""
    shared = type(module)
    content = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, content)


def _restore_order(module: nn.Module) -> None:
    """Restore the order that a module's parameters had before any was computed."""
    for name in getattr(module, _ORDER, ()):
        module._parameters[name] = module._parameters.pop(name)
    vars(module).pop(_ORDER, None)
