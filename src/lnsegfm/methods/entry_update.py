"""How selected entries of a weight are updated: by the gradient, with momentum, within a bound, by a masked gradient.

Entries that are not selected are not written to, so they stay bit-identical (but for `MaskedGradient`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lnsegfm.methods.entry_selection import Selection, State, WeightStep
from lnsegfm.methods.sgd_step import sgd_step

FEW = 64
"""Entries of a kernel up to which those of a transposed convolution are updated in place: quicker than copying rows."""

Rates = Mapping[str, Any]
"""A parameter group: ``lr``, ``momentum``, ``nesterov`` and ``weight_decay``, which schedules may change."""


@dataclass(frozen=True)
class Update:
    """Updates the selected entries of weights, one weight after the other."""

    def step(self, steps: Sequence[WeightStep], selection: Selection, rates: Rates, state: State) -> None:
        """Select entries and update them."""
        for step in steps:
            self.update(step, selection.select(step, state), rates, state)

    def update(self, step: WeightStep, chosen: Tensor, rates: Rates, state: State) -> None:
        """Update the entries (kernels, number) of one weight."""
        raise NotImplementedError


@dataclass(frozen=True)
class GradientStep(Update):
    """w -= lr_scale * lr * g: the paper's rule, without decay, momentum or state.

    Args:
        lr_scale: Factor on ``lr``.
    """

    lr_scale: float = 1.0

    def update(self, step: WeightStep, chosen: Tensor, rates: Rates, state: State) -> None:  # noqa: ARG002
        """Subtract the gradient."""
        entries = _Entries(step, chosen)
        entries.subtract(entries.of(step.gradient), rates["lr"] * self.lr_scale)


@dataclass(frozen=True)
class BoundedStep(Update):
    """w -= clip(lr_scale * lr * g, +-b) with b = bound_scale * lr * (root mean square of the kernel).

    Args:
        lr_scale: Factor on ``lr``.
        bound_scale: Factor on ``lr`` that gives the bound as a share of the kernel's root mean square.
    """

    lr_scale: float
    bound_scale: float

    def update(self, step: WeightStep, chosen: Tensor, rates: Rates, state: State) -> None:  # noqa: ARG002
        """Subtract the gradient within the bound."""
        entries = _Entries(step, chosen)
        rms = step.layout.rows(step.weight).square().mean(dim=1, keepdim=True).sqrt()
        bound = rates["lr"] * self.bound_scale * rms
        entries.subtract((entries.of(step.gradient) * (rates["lr"] * self.lr_scale)).clamp(-bound, bound), 1.0)


@dataclass(frozen=True)
class MomentumStep(Update):
    """The step of `torch.optim.SGD`, applied to the selected entries; decay and momentum are kept for every entry."""

    def update(self, step: WeightStep, chosen: Tensor, rates: Rates, state: State) -> None:
        """Update the momentum of all entries, and the selected entries."""
        direction = step.gradient.add(step.weight, alpha=rates["weight_decay"])
        direction = _with_momentum(step.weight, direction, rates, state)
        entries = _Entries(step, chosen)
        entries.subtract(entries.of(direction), rates["lr"])


@dataclass(frozen=True)
class FixedEntriesSGD(Update):
    """`torch.optim.SGD` without decay on entries that stay the same: momentum is kept for them alone."""

    def update(self, step: WeightStep, chosen: Tensor, rates: Rates, state: State) -> None:
        """Update the momentum of the entries, and the entries."""
        entries = _Entries(step, chosen)
        entries.subtract(_with_momentum(step.weight, entries.of(step.gradient), rates, state), rates["lr"])


@dataclass(frozen=True)
class MaskedGradient(Update):
    """`torch.optim.SGD` on gradients that are zero outside the selection: decay and momentum update others, too."""

    def step(self, steps: Sequence[WeightStep], selection: Selection, rates: Rates, state: State) -> None:
        """Mask the gradients of all weights and take one SGD step."""
        sgd_step(state, rates, {step.weight: self._masked(step, selection.select(step, state)) for step in steps})

    @staticmethod
    def _masked(step: WeightStep, chosen: Tensor) -> Tensor:
        rows = step.layout.rows(step.gradient)
        masked = torch.zeros_like(rows).scatter_(1, chosen, rows.gather(1, chosen))
        return step.layout.unrows(masked, step.weight)


class _Entries:
    """Selected entries (kernels, number) of a weight, read and written at once."""

    def __init__(self, step: WeightStep, chosen: Tensor) -> None:
        self.weight, self.layout, self.shape = step.weight, step.layout, chosen.shape
        self.in_place = step.layout.transposed and chosen.shape[1] <= FEW
        self.index = step.layout.places(chosen, step.weight).view(1, -1) if self.in_place else chosen

    def of(self, tensor: Tensor) -> Tensor:
        """The values of a tensor of the weight's shape there."""
        return self._rows(tensor).gather(1, self.index).view(self.shape)

    def subtract(self, steps: Tensor, lr: float) -> None:
        """Subtract ``lr`` times some values (kernels, number) from the weight."""
        rows = self._rows(self.weight)
        rows.scatter_(1, self.index, rows.gather(1, self.index).sub_(steps.view_as(self.index), alpha=lr))
        if rows.data_ptr() != self.weight.data_ptr():  # a copy, as of weights in channels-last order
            self.weight.copy_(rows.view(self.weight.shape) if self.in_place else self.layout.unrows(rows, self.weight))

    def _rows(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(1, -1) if self.in_place else self.layout.rows(tensor)


def _with_momentum(weight: Tensor, direction: Tensor, rates: Rates, state: State) -> Tensor:
    """The direction of `torch.optim.SGD` with momentum; ``direction`` is overwritten."""
    momentum = rates["momentum"]
    if not momentum:
        return direction
    own = state[weight]
    before = own.get("momentum_buffer")
    buffer = direction.clone() if before is None else before.mul_(momentum).add_(direction)
    own["momentum_buffer"] = buffer
    return direction.add_(buffer, alpha=momentum) if rates["nesterov"] else buffer
