"""A network taken apart: every parameter once, with its name, its module and its role."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lnsegfm.errors import ConfigError
from lnsegfm.networks.cards import find_card, head_modules, unwrap
from lnsegfm.networks.role import Role

NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
KERNELS: tuple[type[nn.Module], ...] = (_ConvNd, nn.Linear, nn.Bilinear)


@dataclass(frozen=True)
class KernelLayout:
    """Where the kernels lie in a weight. One kernel = one output filter: all of its input channels and taps.

    Convolutions and linear layers store (out, in / groups, *taps). Transposed convolutions store
    (in, out / groups, *taps), the input channels of one group after the other.

    Args:
        transposed: The weight is that of a transposed convolution.
        groups: Groups of the convolution.
    """

    transposed: bool = False
    groups: int = 1

    @classmethod
    def of(cls, module: nn.Module) -> KernelLayout:
        """The layout of a module's weight."""
        if isinstance(module, _ConvTransposeNd):
            return cls(transposed=True, groups=module.groups)
        return cls()

    def rows(self, weight: Tensor) -> Tensor:
        """The weight as (kernels, fan-in): a view where storage allows, else a copy."""
        if not self.transposed:
            return weight.flatten(1)
        return weight.unflatten(0, (self.groups, -1)).transpose(1, 2).flatten(0, 1).flatten(1)

    def unrows(self, rows: Tensor, weight: Tensor) -> Tensor:
        """The inverse of `rows`: (kernels, fan-in) in the shape of ``weight``."""
        if not self.transposed:
            return rows.view(weight.shape)
        fan_in = weight.shape[0] // self.groups
        grouped = rows.view(self.groups, weight.shape[1], fan_in, *weight.shape[2:])
        return grouped.transpose(1, 2).reshape(weight.shape)


@dataclass(frozen=True, eq=False)
class Part:
    """One parameter of a network.

    Args:
        name: Its first name in ``network.named_parameters()``.
        parameter: The tensor itself.
        role: What it is.
        module: The module that owns it.
    """

    name: str
    parameter: nn.Parameter
    role: Role
    module: nn.Module

    @property
    def layout(self) -> KernelLayout:
        """Where the kernels lie in it; of meaning for weights only."""
        return KernelLayout.of(self.module)


def parts_of(network: nn.Module, head: Sequence[nn.Module] | None = None) -> list[Part]:
    """Every parameter of a network once, whatever number of names it has, in the order of ``named_parameters``.

    nnU-Net's networks hold most modules under several names; a role follows the module, never a name.

    Args:
        network: Any network; wrapped or compiled ones are looked into.
        head: Modules whose output channels are the labels, for a network that has no card.

    Raises:
        ConfigError: The network has no card and no head was named, or the head is not part of the network.
    """
    network = unwrap(network)
    heads = {id(p) for module in head_modules(network, head) for p in module.parameters()}
    if not heads <= {id(p) for p in network.parameters()}:
        raise ConfigError(
            f"Head of {type(network).__name__}: it holds parameters that the network does not. "
            "Name layers of this very network."
        )
    card = find_card(network)
    positions = card.positions if card else frozenset()
    parts, seen = [], set()
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            full = f"{prefix}.{name}" if prefix else name
            role = Role.HEAD if id(parameter) in heads else _role(module, name, name in positions)
            parts.append(Part(full, parameter, role, module))
    return parts


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
