"""SGD that is dense for some tensors and, for kernels, touches only their steepest entries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.sgd import sgd

from lnsegfm.methods.dgst import Mode
from lnsegfm.networks.parts import KernelLayout


class SparseSGD(Optimizer):
    """The optimizer of `lnsegfm.methods.dgst.DGST`, which see.

    Two parameter groups: the dense one follows `torch.optim.SGD`, the sparse one moves ``gamma`` entries per kernel by
    ``lr * lr_scale`` times the gradient. A scheduler that sets ``lr`` in all groups alike keeps their ratio.
    Selection is one ``topk`` per tensor and one ``scatter``; entries that are not selected are not written to, so they
    stay bit-identical. Under DDP every rank sees the same mean gradient and makes the same choice.

    Args:
        dense: Tensors that move in all entries.
        sparse: Weights with the layout of their kernels.
        gamma: Entries that move per kernel and step.
        mode: What moves a selected entry.
        lr: Learning rate.
        lr_scale: Factor on ``lr`` for the selected entries in mode ``paper``.
        momentum: Momentum of the dense tensors, and of weights in the modes that have one.
        nesterov: Nesterov's form of it.
        weight_decay: L2 decay of the same.
    """

    def __init__(
        self,
        dense: Sequence[nn.Parameter],
        sparse: Sequence[tuple[nn.Parameter, KernelLayout]],
        *,
        gamma: int,
        mode: Mode,
        lr: float,
        lr_scale: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        common = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        groups: list[dict[str, Any]] = []
        if dense:
            groups.append({"params": list(dense), "gamma": 0})
        if sparse:
            groups.append({"params": [weight for weight, _ in sparse], "gamma": gamma})
        self._layouts: dict[Tensor, KernelLayout] = dict(sparse)
        super().__init__(groups, {**common, "mode": str(mode), "lr_scale": lr_scale})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_layouts": self._layouts}  # so that copies and pickles know the kernels

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            gradients = {p: p.grad for p in group["params"] if p.grad is not None}
            if group["gamma"] == 0:
                self._dense_step(group, gradients)
            elif group["mode"] == Mode.MASKED_GRADIENT:
                self._dense_step(group, {p: self._masked(group, p, g) for p, g in gradients.items()})
            elif group["mode"] == Mode.MOMENTUM:
                for p, g in gradients.items():
                    self._sparse_step(p, self._selected(group, p, g), self._direction(group, p, g), group["lr"])
            else:
                for p, g in gradients.items():
                    self._sparse_step(p, self._selected(group, p, g), g, group["lr"] * group["lr_scale"])
        return loss

    def _dense_step(self, group: dict[str, Any], gradients: dict[Tensor, Tensor]) -> None:
        parameters = list(gradients)
        buffers = [self.state.get(p, {}).get("momentum_buffer") for p in parameters]
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
                self.state[parameter]["momentum_buffer"] = buffer

    def _selected(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> Tensor:
        """Indices (kernels, gamma) of the steepest entries within each kernel's row."""
        steepness = self._layouts[parameter].rows(gradient).abs()
        return steepness.topk(min(group["gamma"], steepness.shape[1]), dim=1, sorted=False).indices

    def _sparse_step(self, parameter: Tensor, chosen: Tensor, direction: Tensor, lr: float) -> None:
        layout = self._layouts[parameter]
        rows = layout.rows(parameter)
        steps = layout.rows(direction).gather(1, chosen)
        rows.scatter_(1, chosen, rows.gather(1, chosen).sub_(steps, alpha=lr))
        if rows.data_ptr() != parameter.data_ptr():  # the rows were a copy, as of a transposed convolution
            parameter.copy_(layout.unrows(rows, parameter))

    def _direction(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> Tensor:
        """The direction that `torch.optim.SGD` would take, for every entry."""
        gradient = gradient.add(parameter, alpha=group["weight_decay"])
        if not group["momentum"]:
            return gradient
        state = self.state[parameter]
        if "momentum_buffer" in state:
            state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
        else:
            state["momentum_buffer"] = gradient.clone()
        buffer = state["momentum_buffer"]
        return gradient.add_(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer

    def _masked(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> Tensor:
        layout = self._layouts[parameter]
        chosen = self._selected(group, parameter, gradient)
        rows = layout.rows(gradient)
        masked = torch.zeros_like(rows).scatter_(1, chosen, rows.gather(1, chosen))
        return layout.unrows(masked, parameter)
