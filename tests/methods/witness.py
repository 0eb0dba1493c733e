"""One engine that holds every step of a method against an independent account of it.

`Witness` looks at a network right before and right after each optimizer step. What each entry should be is told by
`torch.optim.SGD` or `AdamW` on clones of the tensors (dense tensors, and the rules with momentum) and by plain NumPy
(the paper's rule, the bounded step), on entries chosen by explicit indexing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lnsegfm.methods.method import Method
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.parts import Part, parts_of
from lnsegfm.networks.role import Role
from tests.networks.kernels import kernel_indices

LR = 2.0**-10
"""Rates, pulls and means are powers of two: their products are exact, so that each step has one float32 value."""

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
"""What each method moves, written down a second time; ``decoder`` goes by names, see `is_meant`."""


def is_meant(method: Method, part: Part) -> bool:
    """Whether a method is to train a parameter, told apart from the method's own view."""
    if method.name == "decoder":  # a name is the first one, so what nnU-Net's decoder holds of the encoder is not meant
        return part.name.startswith("decoder") or part.role is Role.HEAD
    if part.role in (Role.NORM_WEIGHT, Role.NORM_BIAS) and not getattr(method, "norms", True):
        return False
    return part.role in MOVES[method.name]


def bits(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor as integers: -0.0 differs from 0.0, and a NaN equals itself."""
    tensor = tensor.detach().cpu().contiguous()
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}[tensor.element_size()]
    return tensor.reshape(-1).view(width).numpy().copy()


def assert_same_bits(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise unless two tensors are bit-identical."""
    different = np.flatnonzero(bits(actual) != bits(expected))
    assert different.size == 0, f"{what}: {different.size} of {actual.numel()} entries differ, first {different[:3]}"


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


def selection(part: Part, gradient: Tensor, gamma: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat masks (certain, possible) of the gamma steepest entries per kernel."""
    return largest(kernel_indices(part.module, tuple(gradient.shape)), gradient.detach().cpu().numpy(), gamma)


@dataclass
class Witness:
    """Checks every step of an optimizer; make it after the optimizer and before the first step.

    Args:
        network: The network that trains.
        method: Its method.
        optimizer: Its optimizer.
        options: Momentum, Nesterov and decay that the optimizer was asked for.
        head: The head that was named.
        tied: Entries of a weight that were once as steep as another, of which a rule may take either.
        ever: Entries of a weight that have moved at some step.
        sums: Of the gradients' magnitudes, and means of the gradients, by which some rules rank entries.
        garbled: A gradient was once not a number of any use.
    """

    network: Any
    method: Method
    optimizer: Optimizer
    options: dict[str, Any]
    head: Sequence[nn.Module] | None = None
    steps: int = 0
    moved: set[str] = field(default_factory=set)
    tied: dict[str, Any] = field(default_factory=dict)
    ever: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, Any] = field(default_factory=dict)
    garbled: bool = False

    def __post_init__(self) -> None:
        self.parts = parts_of(self.network, self.head)
        self.trained = [part for part in self.parts if is_meant(self.method, part)]
        self.rule = SPARSE_RULE.get(self.method.name)
        self.rule = getattr(self.method, "mode", None) if self.rule == "" else self.rule
        self.sparse = [part for part in self.trained if self.rule is not None and part.role is Role.WEIGHT]
        self.gamma = getattr(self.method, "gamma", 0)
        self.start = {part.name: part.parameter.detach().clone() for part in self.trained}
        self.shadow = {name: tensor.clone().requires_grad_() for name, tensor in self.start.items()}
        adam = getattr(self.method, "rule", "") == "adamw"
        options = {"weight_decay": self.options["weight_decay"]} if adam else dict(self.options)
        if self.rule == "static" or self.method.name == "l2-sp":
            options["weight_decay"] = 0.0
        cls: Any = torch.optim.AdamW if adam else torch.optim.SGD
        self.reference: Any = cls(list(self.shadow.values()), lr=LR, **options)
        self.optimizer.register_step_pre_hook(lambda *_: self._before())
        self.optimizer.register_step_post_hook(lambda *_: self._after())

    def _before(self) -> None:
        assert [p.name for p in self.trained if p.parameter.grad is None] == [], "trained tensors without a gradient"
        assert [p.name for p in self.parts if p not in self.trained and p.parameter.grad is not None] == []
        self.before = {part.name: part.parameter.detach().clone() for part in self.parts}
        self.gradients = {p.name: p.parameter.grad.clone() for p in self.trained if p.parameter.grad is not None}
        self.buffers = {name: buffer.clone() for name, buffer in unwrap(self.network).named_buffers()}

    def _after(self) -> None:
        self.steps += 1
        self._rank()
        looking = self.rule == "static" and self.steps <= getattr(self.method, "passes", 0)
        if not looking:
            self._step_reference()
        for part in self.parts:
            if part not in self.trained:
                assert_same_bits(part.parameter, self.before[part.name], f"frozen {part.name}")
            elif looking:
                assert_same_bits(part.parameter, self.before[part.name], f"only looked at {part.name}")
            elif part in self.sparse:
                self._check_weight(part)
            else:
                self._assert_at(part, self.shadow[part.name], "dense")
            if not np.array_equal(bits(part.parameter), bits(self.before[part.name])):
                self.moved.add(part.name)
        for name, buffer in unwrap(self.network).named_buffers():
            assert_same_bits(buffer, self.buffers[name], f"buffer {name}")

    @staticmethod
    def _assert_at(part: Part, expected: Tensor, what: str) -> None:
        wrong = np.flatnonzero(_elsewhere(part.parameter, expected))
        assert wrong.size == 0, f"{what} {part.name}: {wrong.size} of {expected.numel()} differ, first {wrong[:3]}"

    def _rank(self) -> None:
        """Keep what entries of a sparse weight are ranked by, for the rules that look at more than one step."""
        memory = getattr(self.method, "memory", 0.0)
        for part in self.sparse:
            gradient = self.gradients[part.name].detach().cpu().numpy()
            before = self.sums.get(part.name, np.zeros_like(gradient))
            if self.rule == "static" and self.steps <= getattr(self.method, "passes", 0):
                self.sums[part.name] = before + np.abs(gradient)
            elif memory:
                self.sums[part.name] = gradient.dtype.type(memory) * before + gradient.dtype.type(1 - memory) * gradient

    def _step_reference(self) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        for group in self.reference.param_groups:
            group["lr"] = rate
        for part in self.trained:
            shadow, gradient = self.shadow[part.name], self.gradients[part.name].clone()
            if self.method.name == "l2-sp":
                gradient = self._pulled(part, gradient)
            if part in self.sparse and self.rule != "static":
                shadow.data.copy_(self.before[part.name])
                if self.rule == "masked-gradient":
                    certain, possible = selection(part, gradient, self.gamma)
                    self.tied[part.name] = self.tied.get(part.name, False) | (possible & ~certain)
                    gradient[~torch.from_numpy(certain).reshape(gradient.shape)] = 0.0
            shadow.grad = gradient
        self.reference.step()

    def _pulled(self, part: Part, gradient: Tensor) -> Tensor:
        """The gradient of the loss with L2-SP's pull, by NumPy."""
        weight, start = self.before[part.name].numpy(), self.start[part.name].numpy()
        strength, pull = self.method.alpha, weight - start  # type: ignore[attr-defined]
        if part.role is Role.HEAD:
            strength, pull = self.method.beta, weight  # type: ignore[attr-defined]
        return torch.from_numpy(gradient.numpy() + weight.dtype.type(strength) * pull)

    def _candidates(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Flat masks of the entries that must move if they can, and of those that may."""
        gradient = self.gradients[part.name]
        if self.method.name.startswith("random") or getattr(self.method, "select", "") == "random":
            return np.zeros(gradient.numel(), bool), np.ones(gradient.numel(), bool)
        ranks = self.sums.get(part.name, gradient.detach().cpu().numpy())
        return largest(kernel_indices(part.module, tuple(gradient.shape)), ranks, self.gamma)

    def _check_weight(self, part: Part) -> None:
        before, after = self.before[part.name], part.parameter
        if self.rule == "masked-gradient":
            different = _elsewhere(after, self.shadow[part.name]) & ~self.tied[part.name]
            assert not different.any(), f"masked-gradient {part.name}: {different.sum()} entries differ"
            return
        changed = bits(after) != bits(before)
        certain, possible = self._candidates(part)
        assert not (changed & ~possible).any(), f"{part.name}: {(changed & ~possible).sum()} unselected entries moved"
        wrong, would = self._wrong(part)
        zero = (self.gradients[part.name] == 0).reshape(-1).numpy()
        idle = zero & ~changed if self.rule != "static" else np.zeros_like(changed)
        self.ever[part.name] = self.ever.get(part.name, False) | changed
        counted = self.ever[part.name] if self.rule == "static" else changed
        wrong &= (certain | counted) & ~idle
        assert not wrong.any(), f"{part.name}: {wrong.sum()} selected entries are not where the rule puts them"
        index = kernel_indices(part.module, tuple(after.shape))
        keep = min(self.gamma, index.shape[1]) if self.gamma else index.shape[1]
        per_kernel = counted[index].sum(axis=1)
        assert per_kernel.max() <= keep, f"{part.name}: {per_kernel.max()} entries of a kernel moved"
        lazy = would[index].all(axis=1) & (per_kernel < keep)
        assert not lazy.any(), f"{part.name}: {lazy.sum()} kernels moved in fewer than {keep} entries"

    def _wrong(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Flat masks of the entries that are not where the rule would put them, and of those that it would move."""
        if self.rule == "bounded":
            return self._beyond_bounds(part)
        expected = self._paper(part) if self.rule == "paper" else self.shadow[part.name].detach()
        origin = self.start if self.rule == "static" else self.before
        return _elsewhere(part.parameter, expected), _elsewhere(expected, origin[part.name])

    def _paper(self, part: Part) -> Tensor:
        rate = self.method.weight_lr * self.optimizer.param_groups[0]["lr"] / LR  # type: ignore[attr-defined]
        before, gradient = self.before[part.name].numpy(), self.gradients[part.name].numpy()
        return torch.from_numpy(before - gradient.dtype.type(rate) * gradient)

    def _beyond_bounds(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """The same for the bounded step, whose bound is a root of a mean and so known to rounding only."""
        method: Any = self.method
        factor = self.optimizer.param_groups[0]["lr"] / LR
        index = kernel_indices(part.module, tuple(part.parameter.shape))
        before = self.before[part.name].double().numpy().reshape(-1)
        after = part.parameter.detach().double().numpy().reshape(-1)
        bound = np.empty_like(before)
        bound[index] = factor * method.bound * np.sqrt(np.square(before[index]).mean(axis=1, keepdims=True))
        whole = factor * method.weight_lr * self.gradients[part.name].double().numpy().reshape(-1)
        expected = before - np.clip(whole, -bound, bound)
        epsilon = torch.finfo(part.parameter.dtype).eps
        room = epsilon * (np.maximum(np.abs(before), np.abs(expected)) + 8 * bound)
        exact = torch.from_numpy((before - whole).reshape(part.parameter.shape)).to(part.parameter.dtype)
        free = np.abs(whole) < 0.999 * bound
        with np.errstate(invalid="ignore"):
            wrong = np.where(free, _elsewhere(part.parameter, exact), ~(np.abs(after - expected) <= room))
        wrong &= ~(np.isnan(after) & np.isnan(expected))
        return wrong, np.abs(expected - before) > 2 * room


def _elsewhere(actual: Tensor, expected: Tensor) -> np.ndarray:
    """Flat mask of the entries whose bits differ, two NaNs excepted: which of two a sum keeps is not told."""
    both = (actual.isnan() & expected.isnan()).cpu().reshape(-1).numpy()
    return (bits(actual) != bits(expected)) & ~both
