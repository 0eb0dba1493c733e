"""SGD that is dense for some tensors and, for kernels, moves a few entries each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lnsegfm.methods.sgd_step import sgd_step
from lnsegfm.methods.sparse import RANDOM, STEEPEST
from lnsegfm.networks.layout import KernelLayout

OF_MANY = 64
"""Entries from which on a CPU's ``topk`` takes the first of equals; of fewer it may take any."""
BLOCKS = (54, 64, 27, 32)
"""Into how many blocks a row is taken apart, the first that divides it: 27 taps and 8 are what kernels have."""

FEW = 64
"""Entries a kernel up to which those of a transposed convolution are found where they lie."""


class SparseSGD(Optimizer):
    """The optimizer of the methods that are `lnsegfm.methods.sparse.Sparse`.

    Two parameter groups: the dense one follows `torch.optim.SGD`, the sparse one moves ``gamma`` entries per kernel.
    A scheduler that sets ``lr`` in all groups alike keeps their ratio. Selection is a maximum or one ``topk`` per
    tensor; entries that are not selected are not written to, so they stay bit-identical. Under DDP every rank sees the
    same mean gradient and makes the same choice.

    Args:
        dense: Tensors that move in all entries.
        sparse: Weights with the layout of their kernels.
        gamma: Entries that move per kernel and step; 0 for all.
        mode: What moves a selected entry: ``paper``, ``momentum`` and ``masked-gradient`` as in
            `lnsegfm.methods.dgst.Mode`; ``bounded`` as ``paper``, clipped to a share of the kernel's RMS; ``static`` by
            SGD with momentum and without decay on entries that were chosen once, and no decay of the dense tensors.
        lr: Learning rate.
        lr_scale: Factor on ``lr`` for the selected entries in the modes ``paper`` and ``bounded``.
        bound_scale: Factor on ``lr`` that gives the bound.
        select: ``steepest`` entries, or ``random`` ones.
        memory: Decay of the mean of gradients that entries are ranked by.
        passes: Steps of mode ``static`` that only sum gradients.
        seed: Of random entries; the choice depends on it, the step and the tensor's place alone.
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
        mode: str,
        lr: float,
        lr_scale: float = 1.0,
        bound_scale: float = 0.0,
        select: str = STEEPEST,
        memory: float = 0.0,
        passes: int = 0,
        seed: int = 0,
        momentum: float,
        nesterov: bool,
        weight_decay: float,
    ) -> None:
        common = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        if mode == "static":
            common["weight_decay"] = 0.0
        rule = {
            "mode": str(mode),
            "lr_scale": lr_scale,
            "bound_scale": bound_scale,
            "select": select,
            "memory": memory,
            "passes": passes,
            "seed": seed,
            "steps": 0,
        }
        groups: list[dict[str, Any]] = []
        if dense:
            groups.append({"params": list(dense), "sparse": False, "gamma": 0})
        if sparse:
            groups.append({"params": [weight for weight, _ in sparse], "sparse": True, "gamma": gamma})
        self._layouts: dict[Tensor, KernelLayout] = dict(sparse)
        super().__init__(groups, {**common, **rule})

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_layouts": self._layouts}  # so that copies and pickles know the kernels

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, entries that were chosen once as the whole numbers that they are.

        torch would give them their parameter's type, and bfloat16 knows no whole number above 256 exactly.
        """
        super().load_state_dict(state_dict)
        numbers = [number for group in state_dict["param_groups"] for number in group["params"]]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        for number, parameter in zip(numbers, parameters, strict=True):
            chosen = state_dict["state"].get(number, {}).get("chosen")
            if chosen is not None:
                self.state[parameter]["chosen"] = chosen.to(parameter.device, copy=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            gradients = {p: p.grad for p in group["params"] if p.grad is not None}
            group["steps"] += 1
            if group["steps"] <= group["passes"]:
                if group["sparse"]:
                    self._sum(gradients)
            elif not group["sparse"]:
                sgd_step(self.state, group, gradients)
            elif group["mode"] == "masked-gradient":
                sgd_step(self.state, group, {p: self._masked(group, p, g) for p, g in gradients.items()})
            else:
                for p, g in gradients.items():
                    self._sparse_step(group, p, g)
        return loss

    def _sum(self, gradients: dict[Tensor, Tensor]) -> None:
        for parameter, gradient in gradients.items():
            state = self.state[parameter]
            state["steepness"] = state["steepness"] + gradient.abs() if "steepness" in state else gradient.abs()

    def _sparse_step(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> None:
        layout, mode = self._layouts[parameter], group["mode"]
        chosen = self._chosen_once(group, parameter) if mode == "static" else self._selected(group, parameter, gradient)
        direction, lr = gradient, group["lr"]
        if mode == "momentum":
            direction = self._direction(group, parameter, gradient)
        few = layout.transposed and chosen.shape[1] <= FEW  # so few are quicker to find than rows are to copy
        where = layout.places(chosen, parameter).view(1, -1) if few else chosen
        rows = parameter.reshape(1, -1) if few else layout.rows(parameter)
        steps = (direction.reshape(1, -1) if few else layout.rows(direction)).gather(1, where).view_as(chosen)
        if mode == "static":
            steps = self._with_momentum(group, parameter, steps)
        elif mode == "paper":
            lr *= group["lr_scale"]
        elif mode == "bounded":
            rms = layout.rows(parameter).square().mean(dim=1, keepdim=True).sqrt()
            bound = group["lr"] * group["bound_scale"] * rms
            steps, lr = (steps * (lr * group["lr_scale"])).clamp(-bound, bound), 1.0
        rows.scatter_(1, where, rows.gather(1, where).sub_(steps.view_as(where), alpha=lr))
        if rows.data_ptr() != parameter.data_ptr():  # a copy, as of weights that lie channels-last
            parameter.copy_(rows.view(parameter.shape) if few else layout.unrows(rows, parameter))

    def _selected(self, group: dict[str, Any], parameter: Tensor, gradient: Tensor) -> Tensor:
        """Indices (kernels, gamma) of the entries that move, within each kernel's row."""
        layout = self._layouts[parameter]
        if group["select"] == RANDOM:
            ranks = self._random(group, parameter, layout.rows(gradient))
        elif group["memory"]:
            state = self.state[parameter]
            before = state["mean"] if "mean" in state else torch.zeros_like(gradient)
            state["mean"] = before.mul(group["memory"]).add(gradient, alpha=1 - group["memory"])
            ranks = layout.rows(state["mean"]).abs()
        else:
            ranks = layout.rows(gradient).abs()
        return _largest(ranks, group["gamma"])

    def _chosen_once(self, group: dict[str, Any], parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "chosen" not in state:
            rows = self._layouts[parameter].rows(state.pop("steepness", parameter))
            ranks = self._random(group, parameter, rows) if group["select"] == RANDOM else rows
            state["chosen"] = _largest(ranks, group["gamma"])
        chosen: Tensor = state["chosen"]
        return chosen

    def _random(self, group: dict[str, Any], parameter: Tensor, rows: Tensor) -> Tensor:
        place = next(k for k, p in enumerate(group["params"]) if p is parameter)
        step = 0 if group["mode"] == "static" else group["steps"]
        number = (group["seed"] * 1_000_003 + step) * 1_000_003 + place
        generator = torch.Generator().manual_seed(number % 2**63)
        return torch.rand(rows.shape, generator=generator).to(rows.device)

    def _with_momentum(self, group: dict[str, Any], parameter: Tensor, steps: Tensor) -> Tensor:
        if not group["momentum"]:
            return steps
        state = self.state[parameter]
        before = state.get("momentum_buffer")
        state["momentum_buffer"] = steps.clone() if before is None else before.mul_(group["momentum"]).add_(steps)
        buffer: Tensor = state["momentum_buffer"]
        return steps.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer

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


def _largest(ranks: Tensor, gamma: int) -> Tensor:
    """Indices (rows, gamma) of the largest entries of each row; of all of them where gamma is 0."""
    if gamma == 1 and ranks.shape[1] >= OF_MANY:
        return _first_largest(ranks)
    return ranks.topk(min(gamma or ranks.shape[1], ranks.shape[1]), dim=1, sorted=False).indices


def _first_largest(ranks: Tensor) -> Tensor:
    """Indices (rows, 1) of the largest entry of each row, the first of equals: the largest block, then within it.

    A maximum alone is vectorised, one with its place is not; so places are asked of few numbers.
    """
    rows, length = ranks.shape
    blocks = next((number for number in BLOCKS if length % number == 0), 1)
    pieces = ranks.view(rows, blocks, length // blocks)
    block = pieces.amax(dim=2).max(dim=1, keepdim=True).indices
    inside = pieces[torch.arange(rows, device=ranks.device), block[:, 0]].max(dim=1, keepdim=True).indices
    return block * (length // blocks) + inside
