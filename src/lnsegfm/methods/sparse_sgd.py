"""SGD that is dense for some tensors and updates a few entries of every kernel of others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lnsegfm.methods.entry_selection import FixedOnce, RandomEntries, RunningMean, Selection, Steepest, WeightStep
from lnsegfm.methods.entry_update import (
    BoundedStep,
    FixedEntriesSGD,
    GradientStep,
    MaskedGradient,
    MomentumStep,
    Update,
)
from lnsegfm.methods.sgd_step import call_closure, sgd_step
from lnsegfm.networks.layout import KernelLayout

RULES: dict[str, type[Selection | Update]] = {
    cls.__name__: cls
    for cls in (
        Steepest,
        RunningMean,
        RandomEntries,
        FixedOnce,
        GradientStep,
        BoundedStep,
        MomentumStep,
        FixedEntriesSGD,
        MaskedGradient,
    )
}
"""What a state dict may name."""


class SparseSGD(Optimizer):
    """The optimizer of the methods that are `lnsegfm.methods.sparse.Sparse`.

    Two parameter groups: the dense one follows `torch.optim.SGD`; of the weights in the sparse one, ``selection``
    selects entries and ``update`` updates them. A scheduler that sets ``lr`` in all groups alike keeps their ratio.
    A state dict holds the rates and both rules as plain values.

    Args:
        dense: Tensors that are updated in all entries.
        sparse: Weights with the layout of their kernels.
        selection: Selects entries.
        update: Updates them.
        lr: Learning rate.
        momentum: Momentum of the dense tensors, and of weights whose update has one.
        nesterov: Nesterov's form of it.
        weight_decay: L2 decay of the same.
    """

    def __init__(
        self,
        dense: Sequence[nn.Parameter],
        sparse: Sequence[tuple[nn.Parameter, KernelLayout]],
        *,
        selection: Selection,
        update: Update,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        groups: list[dict[str, Any]] = []
        if dense:
            groups.append({"params": list(dense), "sparse": False})
        if sparse:
            groups.append({"params": [weight for weight, _ in sparse], "sparse": True})
        self._layouts: dict[Tensor, KernelLayout] = dict(sparse)
        rates = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(groups, {**rates, "selection": selection, "update": update, "steps": 0})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_layouts": self._layouts}  # so that copies and pickles know the kernels

    def state_dict(self) -> dict[str, Any]:
        """The state, with both rules as plain values: nothing in it has to be executed to read it."""
        content = super().state_dict()
        for group in content["param_groups"]:
            group |= {key: _plain(group[key]) for key in ("selection", "update")}
        return content

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state with its rules, and indices of entries that were selected once as the integers that they are.

        torch would cast these to their parameter's type, and bfloat16 has no integer above 256 exactly.
        """
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group.update({key: _rule(group[key]) for key in ("selection", "update")})
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            chosen = state_dict["state"].get(number, {}).get("chosen")
            if chosen is not None:
                self.state[parameter]["chosen"] = chosen.to(parameter.device, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient."""
        loss = call_closure(closure)
        for group in self.param_groups:
            group["steps"] += 1
            observing = group["steps"] <= group["selection"].passes
            if group["sparse"]:
                self._sparse_step(group, observing)
            elif not observing:
                sgd_step(self.state, group, {p: p.grad for p in group["params"] if p.grad is not None})
        return loss

    def _sparse_step(self, group: dict[str, Any], observing: bool) -> None:
        selection: Selection = group["selection"]
        steps = [
            WeightStep(weight, weight.grad, self._layouts[weight], index, group["steps"])
            for index, weight in enumerate(group["params"])
            if weight.grad is not None
        ]
        if observing:
            for step in steps:
                selection.observe(step, self.state)
        else:
            group["update"].step(steps, selection, group, self.state)


def _plain(rule: Selection | Update) -> dict[str, Any]:
    """A rule as plain values: its class and its settings."""
    settings = {field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)}
    plain = {key: _plain(value) if isinstance(value, Selection) else value for key, value in settings.items()}
    return {"rule": type(rule).__name__, **plain}


def _rule(content: Mapping[str, Any]) -> Selection | Update:
    """The inverse of `_plain`."""
    settings = {key: _rule(value) if isinstance(value, Mapping) else value for key, value in content.items()}
    name = str(settings.pop("rule"))
    return RULES[name](**settings)
