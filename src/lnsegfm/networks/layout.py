"""Where the kernels lie in a weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd


@dataclass(frozen=True)
class KernelLayout:
    """Where the kernels lie in a weight. One kernel is one output filter: all of its input channels and taps.

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

    def places(self, chosen: Tensor, weight: Tensor) -> Tensor:
        """Indices in ``weight.flatten()`` from indices within the rows; both are (kernels, number)."""
        kernels = torch.arange(len(chosen), device=chosen.device).unsqueeze(1)
        taps = weight[0, 0].numel()
        if not self.transposed:
            return kernels * (weight.shape[1] * taps) + chosen
        out, fan_in = weight.shape[1], weight.shape[0] // self.groups
        channel = kernels // out * fan_in + chosen // taps
        return (channel * out + kernels % out) * taps + chosen % taps

    def unrows(self, rows: Tensor, weight: Tensor) -> Tensor:
        """The inverse of `rows`: (kernels, fan-in) in the shape of ``weight``."""
        if not self.transposed:
            return rows.view(weight.shape)
        fan_in = weight.shape[0] // self.groups
        grouped = rows.view(self.groups, weight.shape[1], fan_in, *weight.shape[2:])
        return grouped.transpose(1, 2).reshape(weight.shape)
