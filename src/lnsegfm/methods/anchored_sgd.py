"""SGD with a pull to the initial weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD

from lnsegfm.methods.sgd_step import call_closure, sgd_step


class AnchoredSGD(SGD):
    """`torch.optim.SGD` on the loss plus alpha / 2 |w - w0|^2; w0 is kept in the optimizer's state.

    Args:
        pulled: Tensors that are pulled to their current values.
        decayed: Tensors that are pulled to zero.
        alpha: Strength of the pull to the initial values.
        beta: L2 decay of the others.
        lr: Learning rate.
        momentum: Momentum of all.
        nesterov: Nesterov's form of it.
    """

    def __init__(
        self,
        pulled: Sequence[nn.Parameter],
        decayed: Sequence[nn.Parameter],
        *,
        alpha: float,
        beta: float,
        lr: float,
        momentum: float,
        nesterov: bool,
    ) -> None:
        groups: list[dict[str, Any]] = []
        if pulled:
            groups.append({"params": list(pulled), "alpha": alpha, "weight_decay": 0.0})
        if decayed:
            groups.append({"params": list(decayed), "alpha": 0.0, "weight_decay": beta})
        super().__init__(groups, lr=lr, momentum=momentum, nesterov=nesterov)
        for parameter in pulled:
            self.state[parameter]["start"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the parameters that have a gradient; the pull is added to their gradients."""
        loss = call_closure(closure)
        for group in self.param_groups:
            gradients = {p: p.grad for p in group["params"] if p.grad is not None}
            if group["alpha"]:
                for p, gradient in gradients.items():
                    gradient.add_(p - self.state[p]["start"], alpha=group["alpha"])
            # not the parent's step: torch registers hooks on each class, and they would run twice
            sgd_step(self.state, group, gradients)
        return loss
