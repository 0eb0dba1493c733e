"""Weights that are computed from a frozen one and a few new numbers, and how they become plain weights again.

Each kind is a module for `torch.nn.utils.parametrize`. While it trains, autograd runs through `forward`. Its `merged`
gives the same weight for good: in float64 and by elementwise operations in a fixed order, so that every machine
computes the same bits and an adapter can hold the few numbers in place of the weight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lnsegfm.networks.added import Added
from lnsegfm.networks.layout import KernelLayout

_ORDER = "_order_of_parameters"
"""Where a module keeps the order of its parameters while some of them are computed."""


@dataclass(frozen=True)
class Factors:
    """What one weight is made of besides the base's.

    Args:
        kind: Name of the kind, a key of `KINDS`.
        numbers: Its plain numbers, among them the layout of the weight's kernels.
        tensors: Its tensors by name.
    """

    kind: str
    numbers: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def merged(self, weight: Tensor) -> Tensor:
        """The plain weight, the same bits on every machine.

        Raises:
            KeyError, ValueError, TypeError, RuntimeError: The factors are not those of such a weight.
        """
        return KINDS[self.kind].merged(weight, self.numbers, self.tensors).to(weight.dtype)


class Reparametrized(Added):
    """Base of the kinds: knows the layout of its weight's kernels."""

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
        """Its plain numbers."""
        return {"transposed": self.layout.transposed, "groups": self.layout.groups}

    def factors(self) -> Factors:
        """What it is made of, on the CPU."""
        tensors = {name: tensor.detach().cpu().clone() for name, tensor in self.named_parameters()}
        return Factors(self.kind, self.numbers(), tensors)


class LowRank(Reparametrized):
    """LoRA: W + alpha / rank * B A, with the kernels of W as rows; B is zero at the start, so W is unchanged.

    Args:
        weight: The frozen weight W of ``kernels`` rows and ``fan-in`` columns.
        layout: Where its kernels lie.
        rank: Rows of A and columns of B; never more than the weight's own rank can be.
        alpha: Scale of the product, divided by the rank.
        dropout: Probability that a component of the rank is left out of a step.
        generator: Of the first values of A, drawn uniformly as torch draws a linear layer's.
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
        drawn = torch.empty(rank, fan_in).uniform_(-bound, bound, generator=generator)
        self.a = nn.Parameter(drawn.to(weight))
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

    As in the paper |V| is a constant to the gradient.
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


def reparametrize(owners: list[tuple[nn.Module, str]], module: Reparametrized) -> None:
    """Have a tensor computed by a module wherever it is used, under each of the names that hold it."""
    for owner, name in owners:
        if not hasattr(owner, _ORDER):
            setattr(owner, _ORDER, tuple(owner._parameters))
        parametrize.register_parametrization(owner, name, module, unsafe=True)


def owners_of(network: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Who holds each parameter: the identity of the tensor to its (module, name) pairs."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            found.setdefault(id(parameter), []).append((module, name))
    return found


def is_reparametrized(network: nn.Module) -> bool:
    """Whether any weight of a network is computed by one of the kinds."""
    return any(isinstance(module, Reparametrized) for module in network.modules())


@torch.no_grad()
def merge(network: nn.Module) -> dict[str, Factors]:
    """Make a network plain again, with the weights that it computed with; in place.

    Returns:
        What each weight was made of, by its plain name.
    """
    done: dict[int, str] = {}
    factors: dict[str, Factors] = {}
    for prefix, module in list(network.named_modules()):
        held = getattr(module, "parametrizations", None)
        if not isinstance(held, nn.ModuleDict):
            continue
        for name, steps in list(held.items()):
            kind = next(steps.children(), None)
            if not isinstance(kind, Reparametrized):
                continue
            original = cast(Tensor, steps.original)
            if id(original) not in done:
                done[id(original)] = f"{prefix}.{name}" if prefix else name
                made = kind.factors()
                factors[done[id(original)]] = made
                original.data.copy_(made.merged(original.detach().cpu()))
            _have_own_class(module)
            parametrize.remove_parametrizations(module, name, leave_parametrized=False)
        _restore_order(module)
    return factors


def _have_own_class(module: nn.Module) -> None:
    """Give a module whose tensors are computed a class that no copy of it shares: torch takes properties off it."""
    shared = type(module)
    content = {key: value for key, value in vars(shared).items() if key not in ("__dict__", "__weakref__")}
    module.__class__ = type(shared.__name__, shared.__bases__, content)


def _restore_order(module: nn.Module) -> None:
    """Have a plain module's parameters in the order that they had before any was computed."""
    for name in getattr(module, _ORDER, ()):
        module._parameters[name] = module._parameters.pop(name)
    vars(module).pop(_ORDER, None)


def _layout(numbers: Mapping[str, Any]) -> KernelLayout:
    return KernelLayout(transposed=bool(numbers["transposed"]), groups=int(numbers["groups"]))


def _low_rank(rows: Tensor, numbers: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    a, b, scale = tensors["a"].double(), tensors["b"].double(), float(numbers["scale"])
    for k in range(a.shape[0]):
        rows = rows + (b[:, k : k + 1] * a[k : k + 1]) * scale
    return rows


def _row_sums(rows: Tensor) -> Tensor:
    """Sums over rows (n, m) as (n, 1), halves added to each other until one column is left."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rest = rows[:, 2 * half :]
        rows = torch.cat([rows[:, :half] + rows[:, half : 2 * half], rest], dim=1)
    return rows


def _roots(column: Tensor) -> Tensor:
    """Square roots as IEEE 754 defines them; torch's own may be off by a bit, not by the same on every processor."""
    return column.new_tensor([[math.sqrt(value)] for (value,) in column.tolist()])


def _times(layout: KernelLayout, weight: Tensor, factor: Tensor) -> Tensor:
    if weight.dim() == 1:
        return weight * factor
    return layout.unrows(layout.rows(weight) * factor[:, None], weight)
