"""One step of `torch.optim.SGD` as a function, for optimizers that do more than that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd


def sgd_step(state: MutableMapping[Tensor, Any], group: Mapping[str, Any], gradients: Mapping[Tensor, Tensor]) -> None:
    """Update parameters as `torch.optim.SGD` would, bit for bit; momentum is kept in ``state``.

    Args:
        state: State of the optimizer.
        group: A parameter group with its rates.
        gradients: The parameters to update, with their gradients.
    """
    parameters = list(gradients)
    buffers = [state.get(p, {}).get("momentum_buffer") for p in parameters]
    sgd(
        parameters,
        list(gradients.values()),
        buffers,
        has_sparse_grad=False,
        foreach=None,
        weight_decay=group["weight_decay"],
        momentum=group["momentum"],
        lr=group["lr"],
        dampening=0.0,
        nesterov=group["nesterov"],
        maximize=False,
    )
    if group["momentum"]:
        for parameter, buffer in zip(parameters, buffers, strict=True):
            state[parameter]["momentum_buffer"] = buffer


def call_closure(closure: Callable[[], Any] | None) -> Any:
    """The loss that the closure of an optimizer's step computes, with gradients on; None without a closure."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
