"""Every parameter of a network once, with its name, its module and its role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from lnsegfm.errors import ConfigError
from lnsegfm.networks.added import Added
from lnsegfm.networks.cards import decoder_modules, find_card, head_modules, unwrap
from lnsegfm.networks.layout import KernelLayout
from lnsegfm.networks.role import Role

NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
KERNELS: tuple[type[nn.Module], ...] = (_ConvNd, nn.Linear, nn.Bilinear)


@dataclass(frozen=True, eq=False)
class NetworkParameter:
    """One parameter of a network.

    Args:
        name: Its first name in ``network.named_parameters()``, as it is without anything that a method added.
        tensor: The tensor itself.
        role: Its role.
        module: The module that owns it.
        in_decoder: It lies between encoder and head.
    """

    name: str
    tensor: nn.Parameter
    role: Role
    module: nn.Module
    in_decoder: bool = False

    @property
    def layout(self) -> KernelLayout:
        """Where the kernels lie in it; of meaning for weights only."""
        return KernelLayout.of(self.module)


def parameters_of(network: nn.Module, head: Sequence[nn.Module] | None = None) -> list[NetworkParameter]:
    """Every parameter of a network once, whatever number of names it has, in the order of ``named_parameters``.

    nnU-Net's networks hold most modules under several names; a role follows the module, never a name.

    Args:
        network: Any network; wrapped or compiled ones are unwrapped.
        head: Modules whose output channels are the labels, for a network that has no card.

    Raises:
        ConfigError: The network has no card and no head was named, or the head is not part of the network.
    """
    network = unwrap(network)
    heads = {id(p) for module in head_modules(network, head) for p in module.parameters()}
    if not heads <= {id(p) for p in network.parameters()}:
        raise ConfigError(
            f"Head of {type(network).__name__}: its parameters are not the network's. Name layers of this network."
        )
    card = find_card(network)
    positions = card.positions if card else frozenset()
    decoder = {id(p) for module in decoder_modules(network) for p in module.parameters()}
    parameters, seen = [], set()
    for prefix, module in network.named_modules():
        if isinstance(module, ParametrizationList):  # its tensor is listed with the module whose weight it computes
            continue
        for name, parameter in _own(module):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{prefix}.{name}" if prefix else name
            if isinstance(module, Added) or _inside_added(network, prefix):
                role = Role.ADAPTER
            else:
                role = Role.HEAD if id(parameter) in heads else _role(module, name, name in positions)
            parameters.append(NetworkParameter(full, parameter, role, module, id(parameter) in decoder))
    return parameters


def _own(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """A module's own parameters, those included that a parametrization of a method computes with."""
    yield from module.named_parameters(recurse=False)
    parametrizations = getattr(module, "parametrizations", None)
    if isinstance(parametrizations, nn.ModuleDict):
        for name, entry in parametrizations.items():
            if isinstance(entry, ParametrizationList):
                yield name, cast(nn.Parameter, entry.original)


def _inside_added(network: nn.Module, name: str) -> bool:
    """Whether a module lies within one that a method added."""
    outer = name.split(".")
    return any(isinstance(network.get_submodule(".".join(outer[:k])), Added) for k in range(1, len(outer)))


def _role(module: nn.Module, name: str, position: bool) -> Role:
    if position:
        return Role.POSITION
    if isinstance(module, NORMS):
        return {"weight": Role.NORM_WEIGHT, "bias": Role.NORM_BIAS}.get(name, Role.OTHER)
    if isinstance(module, KERNELS):
        return {"weight": Role.WEIGHT, "bias": Role.BIAS}.get(name, Role.OTHER)
    if isinstance(module, nn.MultiheadAttention):
        projections = {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}
        return Role.WEIGHT if name in projections else Role.BIAS if name == "in_proj_bias" else Role.OTHER
    return Role.OTHER
