"""SGD with a pull to the weights that it started from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD

from lnsegfm.methods.sgd_step import sgd_step


class AnchoredSGD(SGD):
    """`torch.optim.SGD` on the loss plus alpha / 2 |w - w0|^2; w0 is kept in the optimizer's state.

    Args:
        pulled: Tensors that are pulled to their values now.
        decayed: Tensors that are pulled to zero.
        alpha: Strength of the pull.
        beta: Decay of the others.
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
        """Move the parameters that have a gradient; their gradients then hold the pull, too."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            gradients = {p: p.grad for p in group["params"] if p.grad is not None}
            if group["alpha"]:
                for p, gradient in gradients.items():
                    gradient.add_(p - self.state[p]["start"], alpha=group["alpha"])
            # not the parent's step: torch hangs hooks on each class, and they would run twice
            sgd_step(self.state, group, gradients)
        return loss
