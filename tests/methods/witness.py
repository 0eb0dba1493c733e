"""One engine that holds every step of a built-in method against an independent account of it.

`Witness` is a `lnsegfm.testing.step_witness.StepWitness` that knows the rules. What each entry should be is told by
`torch.optim.SGD` or `AdamW` on clones of the tensors (dense tensors, and the rules with momentum) and by plain NumPy
(the paper's rule, the bounded step), on entries chosen by explicit indexing.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from lnsegfm.methods.method import Method
from lnsegfm.networks.parameter_roles import NetworkParameter
from lnsegfm.networks.role import Role
from lnsegfm.testing.step_witness import LR, StepWitness
from lnsegfm.testing.tensor_bits import bits, require_same_bits
from tests.networks.kernels import kernel_indices

SPARSE_RULE = {
    "dgst": "",  # its mode
    "random-dynamic": "paper",
    "dgst-bounded": "bounded",
    "gps": "static",
    "random-static": "static",
}
EVERYTHING = frozenset(Role)
DGST_MOVES = EVERYTHING - {Role.POSITION, Role.OTHER, Role.ADAPTER}
MOVES: dict[str, frozenset[Role]] = {
    "scratch": EVERYTHING,
    "full": EVERYTHING,
    "l2-sp": EVERYTHING,
    "head": frozenset({Role.HEAD}),
    "bias": frozenset({Role.HEAD, Role.BIAS, Role.NORM_BIAS}),
    "affine": frozenset({Role.HEAD, Role.NORM_WEIGHT, Role.NORM_BIAS}),
    **dict.fromkeys(("ssf", "lora", "dora", "spatial-adapter"), frozenset({Role.HEAD, Role.ADAPTER})),
    **dict.fromkeys(("gps", "random-static"), frozenset({Role.HEAD, Role.WEIGHT})),
    **dict.fromkeys(("dgst", "random-dynamic", "dgst-bounded"), DGST_MOVES),
}
MOVES["decoder"] = EVERYTHING
"""What each built-in method moves, written down a second time; ``decoder`` goes by names, see `is_meant`."""


def is_meant(method: Method, parameter: NetworkParameter) -> bool:
    """Whether a method is to train a parameter, told apart from the method's own view."""
    if method.name == "decoder":  # a name is the first one, so what nnU-Net's decoder holds of the encoder is not meant
        return parameter.name.startswith("decoder") or parameter.role is Role.HEAD
    if parameter.role in (Role.NORM_WEIGHT, Role.NORM_BIAS) and not getattr(method, "norms", True):
        return False
    return parameter.role in MOVES.get(method.name, method.trains)


def largest(index: np.ndarray, ranks: np.ndarray, gamma: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat masks (certain, possible) of the gamma largest ranks per row of an index; they differ where entries tie."""
    steepness = np.nan_to_num(np.abs(ranks.astype(np.float64)), nan=np.inf).reshape(-1)[index]
    keep = min(gamma, index.shape[1]) if gamma else index.shape[1]
    threshold = np.sort(steepness, axis=1)[:, -keep][:, None]
    crowded = (steepness >= threshold).sum(axis=1, keepdims=True) > keep
    certain, possible = np.zeros(ranks.size, bool), np.zeros(ranks.size, bool)
    certain[index[(steepness > threshold) | ((steepness == threshold) & ~crowded)]] = True
    possible[index[steepness >= threshold]] = True
    return certain, possible


def selection(parameter: NetworkParameter, gradient: Tensor, gamma: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat masks (certain, possible) of the gamma steepest entries per kernel."""
    return largest(kernel_indices(parameter.module, tuple(gradient.shape)), gradient.detach().cpu().numpy(), gamma)


class Witness(StepWitness):
    """Checks every step of a built-in method by its rule; make it after the optimizer and before the first step.

    Attributes:
        tied: Entries of a weight that were once as steep as another, of which a rule may take either.
        ever: Entries of a weight that have moved at some step.
        sums: Of the gradients' magnitudes, and means of the gradients, by which some rules rank entries.
    """

    method: Any

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tied: dict[str, Any] = {}
        self.ever: dict[str, Any] = {}
        self.sums: dict[str, Any] = {}
        self.rule = SPARSE_RULE.get(self.method.name)
        self.rule = getattr(self.method, "mode", None) if self.rule == "" else self.rule
        self.sparse = [
            parameter for parameter in self.trained if self.rule is not None and parameter.role is Role.WEIGHT
        ]
        self.gamma = getattr(self.method, "gamma", 0)
        self.start = {parameter.name: parameter.tensor.detach().clone() for parameter in self.trained}
        self.shadow = {name: tensor.clone().requires_grad_() for name, tensor in self.start.items()}
        adam = getattr(self.method, "rule", "") == "adamw"
        chosen = {"weight_decay": self.options["weight_decay"]} if adam else dict(self.options)
        if self.rule == "static" or self.method.name == "l2-sp":
            chosen["weight_decay"] = 0.0
        cls: Any = torch.optim.AdamW if adam else torch.optim.SGD
        self.reference: Any = cls(list(self.shadow.values()), lr=LR, **chosen)

    def is_meant(self, parameter: NetworkParameter) -> bool:
        return is_meant(self.method, parameter)

    @property
    def looking(self) -> bool:
        return self.rule == "static" and self.steps <= getattr(self.method, "passes", 0)

    def after_step(self) -> None:
        self._rank()
        if not self.looking:
            self._step_reference()

    def check_trained(self, parameter: NetworkParameter, changed: np.ndarray) -> None:
        super().check_trained(parameter, changed)
        if self.looking:
            require_same_bits(parameter.tensor, self.before[parameter.name], f"only looked at {parameter.name}")
        elif parameter in self.sparse:
            self._check_weight(parameter)
        else:
            self._assert_at(parameter, self.shadow[parameter.name], "dense")

    @staticmethod
    def _assert_at(parameter: NetworkParameter, expected: Tensor, what: str) -> None:
        wrong = np.flatnonzero(_elsewhere(parameter.tensor, expected))
        assert wrong.size == 0, f"{what} {parameter.name}: {wrong.size} of {expected.numel()} differ, first {wrong[:3]}"

    def _rank(self) -> None:
        """Keep what entries of a sparse weight are ranked by, for the rules that look at more than one step."""
        memory = getattr(self.method, "memory", 0.0)
        for parameter in self.sparse:
            gradient = self.gradients[parameter.name].detach().cpu().numpy()
            before = self.sums.get(parameter.name, np.zeros_like(gradient))
            if self.looking:
                self.sums[parameter.name] = before + np.abs(gradient)
            elif memory:
                self.sums[parameter.name] = (
                    gradient.dtype.type(memory) * before + gradient.dtype.type(1 - memory) * gradient
                )

    def _step_reference(self) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        for group in self.reference.param_groups:
            group["lr"] = rate
        for parameter in self.trained:
            shadow, gradient = self.shadow[parameter.name], self.gradients[parameter.name].clone()
            if self.method.name == "l2-sp":
                gradient = self._pulled(parameter, gradient)
            if parameter in self.sparse and self.rule != "static":
                shadow.data.copy_(self.before[parameter.name])
                if self.rule == "masked-gradient":
                    certain, possible = selection(parameter, gradient, self.gamma)
                    self.tied[parameter.name] = self.tied.get(parameter.name, False) | (possible & ~certain)
                    gradient[~torch.from_numpy(certain).reshape(gradient.shape)] = 0.0
            shadow.grad = gradient
        self.reference.step()

    def _pulled(self, parameter: NetworkParameter, gradient: Tensor) -> Tensor:
        """The gradient of the loss with L2-SP's pull, by NumPy."""
        weight, start = self.before[parameter.name].numpy(), self.start[parameter.name].numpy()
        strength, pull = self.method.alpha, weight - start
        if parameter.role is Role.HEAD:
            strength, pull = self.method.beta, weight
        return torch.from_numpy(gradient.numpy() + weight.dtype.type(strength) * pull)

    def _candidates(self, parameter: NetworkParameter) -> tuple[np.ndarray, np.ndarray]:
        """Flat masks of the entries that must move if they can, and of those that may."""
        gradient = self.gradients[parameter.name]
        if self.method.name.startswith("random") or getattr(self.method, "select", "") == "random":
            return np.zeros(gradient.numel(), bool), np.ones(gradient.numel(), bool)
        ranks = self.sums.get(parameter.name, gradient.detach().cpu().numpy())
        return largest(kernel_indices(parameter.module, tuple(gradient.shape)), ranks, self.gamma)

    def _check_weight(self, parameter: NetworkParameter) -> None:
        before, after = self.before[parameter.name], parameter.tensor
        if self.rule == "masked-gradient":
            different = _elsewhere(after, self.shadow[parameter.name]) & ~self.tied[parameter.name]
            assert not different.any(), f"masked-gradient {parameter.name}: {different.sum()} entries differ"
            return
        changed = bits(after) != bits(before)
        certain, possible = self._candidates(parameter)
        assert not (changed & ~possible).any(), (
            f"{parameter.name}: {(changed & ~possible).sum()} unselected entries moved"
        )
        wrong, would = self._wrong(parameter)
        zero = (self.gradients[parameter.name] == 0).reshape(-1).numpy()
        idle = zero & ~changed if self.rule != "static" else np.zeros_like(changed)
        self.ever[parameter.name] = self.ever.get(parameter.name, False) | changed
        counted = self.ever[parameter.name] if self.rule == "static" else changed
        wrong &= (certain | counted) & ~idle
        assert not wrong.any(), f"{parameter.name}: {wrong.sum()} selected entries are not where the rule puts them"
        index = kernel_indices(parameter.module, tuple(after.shape))
        keep = min(self.gamma, index.shape[1]) if self.gamma else index.shape[1]
        per_kernel = counted[index].sum(axis=1)
        assert per_kernel.max() <= keep, f"{parameter.name}: {per_kernel.max()} entries of a kernel moved"
        lazy = would[index].all(axis=1) & (per_kernel < keep)
        assert not lazy.any(), f"{parameter.name}: {lazy.sum()} kernels moved in fewer than {keep} entries"

    def _wrong(self, parameter: NetworkParameter) -> tuple[np.ndarray, np.ndarray]:
        """Flat masks of the entries that are not where the rule would put them, and of those that it would move."""
        if self.rule == "bounded":
            return self._beyond_bounds(parameter)
        expected = self._paper(parameter) if self.rule == "paper" else self.shadow[parameter.name].detach()
        origin = self.start if self.rule == "static" else self.before
        return _elsewhere(parameter.tensor, expected), _elsewhere(expected, origin[parameter.name])

    def _paper(self, parameter: NetworkParameter) -> Tensor:
        rate = self.method.weight_lr * self.optimizer.param_groups[0]["lr"] / LR
        before, gradient = self.before[parameter.name].numpy(), self.gradients[parameter.name].numpy()
        return torch.from_numpy(before - gradient.dtype.type(rate) * gradient)

    def _beyond_bounds(self, parameter: NetworkParameter) -> tuple[np.ndarray, np.ndarray]:
        """The same for the bounded step, whose bound is a root of a mean and so known to rounding only."""
        method: Any = self.method
        factor = self.optimizer.param_groups[0]["lr"] / LR
        index = kernel_indices(parameter.module, tuple(parameter.tensor.shape))
        before = self.before[parameter.name].double().numpy().reshape(-1)
        after = parameter.tensor.detach().double().numpy().reshape(-1)
        bound = np.empty_like(before)
        bound[index] = factor * method.bound * np.sqrt(np.square(before[index]).mean(axis=1, keepdims=True))
        whole = factor * method.weight_lr * self.gradients[parameter.name].double().numpy().reshape(-1)
        expected = before - np.clip(whole, -bound, bound)
        epsilon = torch.finfo(parameter.tensor.dtype).eps
        room = epsilon * (np.maximum(np.abs(before), np.abs(expected)) + 8 * bound)
        exact = torch.from_numpy((before - whole).reshape(parameter.tensor.shape)).to(parameter.tensor.dtype)
        free = np.abs(whole) < 0.999 * bound
        with np.errstate(invalid="ignore"):
            wrong = np.where(free, _elsewhere(parameter.tensor, exact), ~(np.abs(after - expected) <= room))
        wrong &= ~(np.isnan(after) & np.isnan(expected))
        return wrong, np.abs(expected - before) > 2 * room


def _elsewhere(actual: Tensor, expected: Tensor) -> np.ndarray:
    """Flat mask of the entries whose bits differ, two NaNs excepted: which of two a sum keeps is not told."""
    both = (actual.isnan() & expected.isnan()).cpu().reshape(-1).numpy()
    return (bits(actual) != bits(expected)) & ~both
