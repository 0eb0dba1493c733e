"""Which entries of a weight a sparse step updates: the steepest, random ones, by a mean of gradients, or fixed ones."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lnsegfm.networks.layout import KernelLayout

VECTORISED = 64
"""Row length from which a CPU's ``topk`` returns the first of equal entries; of fewer it may return any."""
BLOCKS = (54, 64, 27, 32)
"""Number of blocks that a row is split into, the first that divides it: 27 taps and factors of 8 are common."""


class WeightStep(NamedTuple):
    """A weight at one optimizer step.

    Args:
        weight: The tensor.
        gradient: Its gradient.
        layout: Where its kernels lie.
        weight_index: Its index among the weights of the optimizer.
        step_number: Number of the step, from 1.
    """

    weight: Tensor
    gradient: Tensor
    layout: KernelLayout
    weight_index: int
    step_number: int


State = MutableMapping[Tensor, Any]
"""The state of an optimizer: a dictionary for each parameter."""


@dataclass(frozen=True)
class Selection:
    """Selects entries of every kernel.

    Under DDP every process sees the same mean gradient and selects the same entries.
    """

    @property
    def passes(self) -> int:
        """Steps at the start that update nothing and only call `observe`."""
        return 0

    def observe(self, step: WeightStep, state: State) -> None:
        """Take note of the gradient of a step that updates nothing."""

    def select(self, step: WeightStep, state: State) -> Tensor:
        """Indices (kernels, number) of the entries to update, within the row of each kernel."""
        raise NotImplementedError


@dataclass(frozen=True)
class Steepest(Selection):
    """The entries with the largest absolute gradient, selected anew at each step.

    Args:
        gamma: Entries of each kernel; 0 for all.
    """

    gamma: int

    def select(self, step: WeightStep, state: State) -> Tensor:  # noqa: ARG002
        """By the gradient of this step."""
        return largest(step.layout.rows(step.gradient).abs(), self.gamma)


@dataclass(frozen=True)
class RunningMean(Selection):
    """The entries whose gradients have the largest absolute exponential mean, selected anew at each step.

    Args:
        gamma: Entries of each kernel; 0 for all.
        decay: Decay a of the mean h <- a h + (1 - a) g.
    """

    gamma: int
    decay: float

    def select(self, step: WeightStep, state: State) -> Tensor:
        """By the mean, this step's gradient included."""
        own = state[step.weight]
        before = own["gradient_mean"] if "gradient_mean" in own else torch.zeros_like(step.gradient)
        own["gradient_mean"] = before.mul(self.decay).add(step.gradient, alpha=1 - self.decay)
        return largest(step.layout.rows(own["gradient_mean"]).abs(), self.gamma)


@dataclass(frozen=True)
class RandomEntries(Selection):
    """Random entries, drawn anew at each step.

    The draw depends on the seed, the number of the step and the index of the weight alone.

    Args:
        gamma: Entries of each kernel; 0 for all.
        seed: Of the draw.
    """

    gamma: int
    seed: int

    def select(self, step: WeightStep, state: State) -> Tensor:  # noqa: ARG002
        """By random numbers, on the CPU so that each device draws the same."""
        rows = step.layout.rows(step.gradient)
        number = (self.seed * 1_000_003 + step.step_number) * 1_000_003 + step.weight_index
        generator = torch.Generator().manual_seed(number % 2**63)
        return largest(torch.rand(rows.shape, generator=generator).to(rows.device), self.gamma)


@dataclass(frozen=True)
class FixedOnce(Selection):
    """Entries that another selection chooses once; they stay the same from then on.

    Args:
        selection: Selects them, by the absolute gradients summed over the first ``passes`` steps.
        passes: Steps that only sum gradients; with 0 it selects at the first step.
    """

    selection: Selection
    passes: int = 0

    def observe(self, step: WeightStep, state: State) -> None:
        """Add absolute gradients up."""
        own = state[step.weight]
        steepness = step.gradient.abs()
        own["gradient_sum"] = own["gradient_sum"] + steepness if "gradient_sum" in own else steepness

    def select(self, step: WeightStep, state: State) -> Tensor:
        """The entries that were selected once."""
        own = state[step.weight]
        if "chosen" not in own:
            summed = own.pop("gradient_sum", step.gradient)
            own["chosen"] = self.selection.select(step._replace(gradient=summed, step_number=0), state)
        chosen: Tensor = own["chosen"]
        return chosen


def largest(ranks: Tensor, gamma: int) -> Tensor:
    """Indices (rows, gamma) of the largest entries of each row; of all entries where gamma is 0."""
    if gamma == 1 and ranks.shape[1] >= VECTORISED:
        return _first_largest(ranks)
    return ranks.topk(min(gamma or ranks.shape[1], ranks.shape[1]), dim=1, sorted=False).indices


def _first_largest(ranks: Tensor) -> Tensor:
    """Indices (rows, 1) of the largest entry of each row, the first of equals: the largest block, then within it.

    A maximum alone is vectorised, one with its index is not; so indices are computed for few numbers only.
    """
    rows, length = ranks.shape
    number = next((number for number in BLOCKS if length % number == 0), 1)
    blocks = ranks.view(rows, number, length // number)
    block = blocks.amax(dim=2).max(dim=1, keepdim=True).indices
    inside = blocks[torch.arange(rows, device=ranks.device), block[:, 0]].max(dim=1, keepdim=True).indices
    return block * (length // number) + inside
