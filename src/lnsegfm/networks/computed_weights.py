"""Weights computed from a frozen one and a few added parameters: low-rank products, magnitudes, scales and shifts.

Each kind is a module for `torch.nn.utils.parametrize`. During training autograd runs through `forward`. Its `merged`
gives the final weight: in float64 and by elementwise operations in a fixed order, so that every machine computes the
same bits and an adapter can store the few parameters in place of the weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lnsegfm.networks.added import Added
from lnsegfm.networks.layout import KernelLayout


@dataclass(frozen=True)
class Factors:
    """What one weight is computed from, besides the base's.

    Args:
        kind: Name of the kind, a key of `KINDS`.
        numbers: Its settings, with the layout of the weight's kernels.
        tensors: Its tensors by name.
    """

    kind: str
    numbers: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def merged(self, weight: Tensor) -> Tensor:
        """The plain weight, the same bits on every machine.

        Raises:
            KeyError, ValueError, TypeError, RuntimeError: The factors do not fit the weight.
        """
        return KINDS[self.kind].merged(weight, self.numbers, self.tensors).to(weight.dtype)


class Reparametrized(Added):
    """Base of the kinds: a module that computes a weight, with the layout of its kernels."""

    kind: ClassVar[str]

    def __init__(self, layout: KernelLayout) -> None:
        super().__init__()
        self.layout = layout

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the network computes with."""
        raise NotImplementedError

    @staticmethod
    def merged(weight: Tensor, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
        """The same in float64, in a fixed order."""
        raise NotImplementedError

    def numbers(self) -> dict[str, Any]:
        """Its settings as plain values."""
        return {"transposed": self.layout.transposed, "groups": self.layout.groups}

    def factors(self) -> Factors:
        """What it is computed from, on the CPU."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.named_parameters()}
        return Factors(self.kind, self.numbers(), tensors)


class LowRank(Reparametrized):
    """LoRA: W + alpha / rank * B A, with the kernels of W as rows; B is zero at the start, so W is unchanged.

    Args:
        weight: The frozen weight W of ``kernels`` rows and ``fan-in`` columns.
        layout: Where its kernels lie.
        rank: Rows of A and columns of B; at most the rows or columns of the weight.
        alpha: Scale of the product, divided by the rank.
        dropout: Probability that a component of the rank is dropped in a step.
        generator: Of the initial values of A, uniform as in torch's linear layer.
    """

    kind = "lora"

    def __init__(
        self,
        weight: Tensor,
        layout: KernelLayout,
        *,
        rank: int,
        alpha: float,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__(layout)
        kernels, fan_in = layout.rows(weight).shape
        rank = min(rank, kernels, fan_in)
        bound = 1 / math.sqrt(fan_in)
        initial = torch.empty(rank, fan_in).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(initial.to(weight))
        self.b = nn.Parameter(weight.new_zeros(kernels, rank))
        self.scale = alpha / rank
        self.dropout = dropout

    def difference(self) -> Tensor:
        """B A, scaled, as (kernels, fan-in)."""
        b = nn.functional.dropout(self.b.new_ones(self.b.shape[1]), self.dropout, self.training) * self.b
        with torch.autocast(self.b.device.type, enabled=False):
            return (b @ self.a) * self.scale

    def forward(self, weight: Tensor) -> Tensor:
        """W + scale * B A."""
        return weight + self.layout.unrows(self.difference(), weight)

    def numbers(self) -> dict[str, Any]:
        """Layout and scale."""
        return super().numbers() | {"scale": self.scale}

    @staticmethod
    def merged(weight: Tensor, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
        """W + scale * B A, one component of the rank after the other."""
        layout = _layout(numbers)
        return layout.unrows(_low_rank(layout.rows(weight.double()), numbers, tensors), weight)


class Decomposed(LowRank):
    """DoRA: m * V / |V| with V = W + scale * B A and a magnitude m for each kernel, |W| at the start.

    As in the paper |V| is treated as a constant by the gradient.
    """

    kind = "dora"

    def __init__(self, weight: Tensor, layout: KernelLayout, **settings: Any) -> None:
        super().__init__(weight, layout, **settings)
        with torch.no_grad():
            self.magnitude = nn.Parameter(layout.rows(weight).norm(dim=1, keepdim=True))

    def forward(self, weight: Tensor) -> Tensor:
        """Magnitude times direction, kernel by kernel."""
        rows = self.layout.rows(weight) + self.difference()
        length = rows.detach().norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        return self.layout.unrows(self.magnitude / length * rows, weight)

    @staticmethod
    def merged(weight: Tensor, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
        """The same, with squares summed in pairs."""
        layout = _layout(numbers)
        rows = _low_rank(layout.rows(weight.double()), numbers, tensors)
        length = _roots(_row_sums(rows * rows)).clamp_min(torch.finfo(weight.dtype).tiny)
        return layout.unrows(tensors["magnitude"].double() / length * rows, weight)


class Scale(Added):
    """One factor for each output channel of a layer, 1 at the start; its weight and its bias share it."""

    def __init__(self, weight: Tensor, layout: KernelLayout) -> None:
        super().__init__()
        channels = layout.rows(weight).shape[0] if weight.dim() > 1 else weight.shape[0]
        self.factor = nn.Parameter(weight.new_ones(channels))


class Scaled(Reparametrized):
    """SSF's scale: s W, a factor for each kernel (or each entry of a norm's scale)."""

    kind = "scale"

    def __init__(self, layout: KernelLayout, scale: Scale) -> None:
        super().__init__(layout)
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        """Each kernel times its factor."""
        return _times(self.layout, weight, self.scale.factor)

    @staticmethod
    def merged(weight: Tensor, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
        """The same."""
        return _times(_layout(numbers), weight.double(), tensors["scale.factor"].double())


class Shifted(Reparametrized):
    """SSF's shift: s b + t for the bias b of a layer whose weight is scaled by s; t is 0 at the start."""

    kind = "shift"

    def __init__(self, bias: Tensor, scale: Scale) -> None:
        super().__init__(KernelLayout())
        self.scale = scale
        self.shift = nn.Parameter(torch.zeros_like(bias))

    def forward(self, bias: Tensor) -> Tensor:
        """Scaled and shifted."""
        return self.scale.factor * bias + self.shift

    @staticmethod
    def merged(bias: Tensor, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG004
        """The same."""
        return tensors["scale.factor"].double() * bias.double() + tensors["shift"].double()


KINDS: dict[str, type[Reparametrized]] = {cls.kind: cls for cls in (LowRank, Decomposed, Scaled, Shifted)}


def _layout(numbers: Mapping[str, Any]) -> KernelLayout:
    return KernelLayout(transposed=bool(numbers["transposed"]), groups=int(numbers["groups"]))


def _low_rank(rows: Tensor, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    a, b, scale = tensors["a"].double(), tensors["b"].double(), float(numbers["scale"])
    for k in range(a.shape[0]):
        rows = rows + (b[:, k : k + 1] * a[k : k + 1]) * scale
    return rows


def _row_sums(rows: Tensor) -> Tensor:
    """Sums over rows (n, m) as (n, 1), by adding halves until one column is left: a fixed order."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rest = rows[:, 2 * half :]
        rows = torch.cat([rows[:, :half] + rows[:, half : 2 * half], rest], dim=1)
    return rows


def _roots(column: Tensor) -> Tensor:
    """Square roots as IEEE 754 defines them; torch's own may differ by a bit between processors."""
    return column.new_tensor([[math.sqrt(value)] for (value,) in column.tolist()])


def _times(layout: KernelLayout, weight: Tensor, factor: Tensor) -> Tensor:
    if weight.dim() == 1:
        return weight * factor
    return layout.unrows(layout.rows(weight) * factor[:, None], weight)
