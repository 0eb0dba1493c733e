"""One engine that holds every step of a method against an independent account of it.

`Witness` looks at a network right before and right after each optimizer step. What each entry should be is told by
`torch.optim.SGD` on clones of the tensors (dense tensors and the modes with momentum) and by plain NumPy (the paper's
rule), on entries chosen by explicit indexing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.full import Full
from lnsegfm.methods.method import Method
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.cards import unwrap
from lnsegfm.networks.parts import Part, parts_of
from lnsegfm.networks.role import Role
from tests.networks.kernels import kernel_indices
from tests.networks.tiny import Tiny, loss_of

LR = 2.0**-10
WEIGHT_LR = 2.0**-4
"""Powers of two: their products with a gradient are exact, so that w - weight_lr * g has one float32 value."""

LARGER_THAN_ANY_FAN_IN = 10_000

ALL_METHODS: dict[str, Method] = {name: cls() for name, cls in METHODS.items() if cls is not DGST}
ALL_METHODS |= {
    f"dgst-{mode}-{gamma}": DGST(gamma=gamma, mode=mode, weight_lr=WEIGHT_LR if mode == "paper" else None)
    for mode in ("paper", "momentum", "masked-gradient")
    for gamma in (1, 2, LARGER_THAN_ANY_FAN_IN)
}
ALL_METHODS["full-adamw"] = Full(rule="adamw")


def bits(tensor: Tensor) -> np.ndarray:
    """The bytes of a tensor as integers: -0.0 differs from 0.0, and a NaN equals itself."""
    tensor = tensor.detach().cpu().contiguous()
    width = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}[tensor.element_size()]
    return tensor.reshape(-1).view(width).numpy().copy()


def assert_same_bits(actual: Tensor, expected: Tensor, what: str) -> None:
    """Raise unless two tensors are bit-identical."""
    different = np.flatnonzero(bits(actual) != bits(expected))
    assert different.size == 0, f"{what}: {different.size} of {actual.numel()} entries differ, first {different[:3]}"


def selection(part: Part, gradient: Tensor, gamma: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat masks (certain, possible) of the gamma steepest entries per kernel; they differ where entries tie."""
    index = kernel_indices(part.module, tuple(gradient.shape))
    steepness = np.abs(gradient.detach().double().cpu().numpy()).reshape(-1)[index]
    keep = min(gamma, index.shape[1])
    threshold = np.sort(steepness, axis=1)[:, -keep][:, None]
    crowded = (steepness >= threshold).sum(axis=1, keepdims=True) > keep
    certain, possible = np.zeros(gradient.numel(), bool), np.zeros(gradient.numel(), bool)
    certain[index[(steepness > threshold) | ((steepness == threshold) & ~crowded)]] = True
    possible[index[steepness >= threshold]] = True
    return certain, possible


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
    """

    network: Any
    method: Method
    optimizer: Optimizer
    options: dict[str, Any]
    head: Sequence[nn.Module] | None = None
    steps: int = 0
    moved: set[str] = field(default_factory=set)
    tied: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.parts = parts_of(self.network, self.head)
        self.trained = [part for part in self.parts if part.role in self.method.trains]
        self.shadow = {part.name: part.parameter.detach().clone().requires_grad_() for part in self.trained}
        cls = torch.optim.AdamW if getattr(self.method, "rule", "") == "adamw" else torch.optim.SGD
        known = {"weight_decay": self.options["weight_decay"]} if cls is torch.optim.AdamW else self.options
        self.reference = cls(list(self.shadow.values()), lr=LR, **known)
        self.optimizer.register_step_pre_hook(lambda *_: self._before())
        self.optimizer.register_step_post_hook(lambda *_: self._after())

    @property
    def _sparse_mode(self) -> str | None:
        return self.method.mode if isinstance(self.method, DGST) else None

    def _before(self) -> None:
        assert [p.name for p in self.trained if p.parameter.grad is None] == [], "trained tensors without a gradient"
        assert [p.name for p in self.parts if p not in self.trained and p.parameter.grad is not None] == []
        self.before = {part.name: part.parameter.detach().clone() for part in self.parts}
        self.gradients = {p.name: p.parameter.grad.clone() for p in self.trained if p.parameter.grad is not None}
        self.buffers = {name: buffer.clone() for name, buffer in unwrap(self.network).named_buffers()}

    def _after(self) -> None:
        self.steps += 1
        self._step_reference()
        for part in self.parts:
            if part not in self.trained:
                assert_same_bits(part.parameter, self.before[part.name], f"frozen {part.name}")
            elif self._sparse_mode is not None and part.role is Role.WEIGHT:
                self._check_weight(part)
            else:
                assert_same_bits(part.parameter, self.shadow[part.name], f"dense {part.name}")
            if not np.array_equal(bits(part.parameter), bits(self.before[part.name])):
                self.moved.add(part.name)
        for name, buffer in unwrap(self.network).named_buffers():
            assert_same_bits(buffer, self.buffers[name], f"buffer {name}")

    def _step_reference(self) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        for group in self.reference.param_groups:
            group["lr"] = rate
        for part in self.trained:
            shadow, gradient = self.shadow[part.name], self.gradients[part.name].clone()
            if self._sparse_mode is not None and part.role is Role.WEIGHT:
                shadow.data.copy_(self.before[part.name])
                if self._sparse_mode == "masked-gradient":
                    certain, possible = selection(part, gradient, self.method.gamma)  # type: ignore[attr-defined]
                    self.tied[part.name] = self.tied.get(part.name, False) | (possible & ~certain)
                    gradient[~torch.from_numpy(certain).reshape(gradient.shape)] = 0.0
            shadow.grad = gradient
        self.reference.step()

    def _check_weight(self, part: Part) -> None:
        assert isinstance(self.method, DGST)
        before, after = self.before[part.name], part.parameter
        if self._sparse_mode == "masked-gradient":
            different = (bits(after) != bits(self.shadow[part.name])) & ~self.tied[part.name]
            assert not different.any(), f"masked-gradient {part.name}: {different.sum()} entries differ"
            return
        changed = bits(after) != bits(before)
        certain, possible = selection(part, self.gradients[part.name], self.method.gamma)
        assert not (changed & ~possible).any(), f"{part.name}: {(changed & ~possible).sum()} unselected entries moved"
        per_kernel = changed[kernel_indices(part.module, tuple(after.shape))].sum(axis=1)
        assert per_kernel.max() <= self.method.gamma, f"{part.name}: {per_kernel.max()} entries of a kernel moved"
        expected = self.shadow[part.name].detach() if self._sparse_mode == "momentum" else self._paper(part)
        wrong = (bits(after) != bits(expected)) & (certain | changed)
        zero = (self.gradients[part.name] == 0).reshape(-1).numpy()
        wrong &= ~(zero & ~changed)
        assert not wrong.any(), f"{part.name}: {wrong.sum()} selected entries are not where the rule puts them"

    def _paper(self, part: Part) -> Tensor:
        factor = self.optimizer.param_groups[0]["lr"] / LR
        before, gradient = self.before[part.name].numpy(), self.gradients[part.name].numpy()
        step = gradient.dtype.type(WEIGHT_LR * factor) * gradient
        return torch.from_numpy(before - step)


@dataclass(frozen=True)
class Regime:
    """What surrounds the steps.

    Args:
        momentum: Momentum of the optimizer.
        nesterov: Nesterov's form of it.
        weight_decay: Decay of the optimizer.
        scaled: Gradients go through torch's GradScaler.
        clip: Norm that gradients are clipped to.
        scheduled: The learning rate halves every other step.
    """

    momentum: float = 0.99
    nesterov: bool = True
    weight_decay: float = 3e-5
    scaled: bool = False
    clip: float | None = None
    scheduled: bool = False

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's options."""
        return {name: getattr(self, name) for name in ("momentum", "nesterov", "weight_decay")}


REGIMES: dict[str, Regime] = {
    "no-nesterov": Regime(nesterov=False),
    "no-momentum": Regime(momentum=0.0, nesterov=False),
    "no-decay": Regime(weight_decay=0.0),
    "scaled": Regime(scaled=True),
    "clipped": Regime(clip=0.05),
    "scheduled": Regime(scheduled=True),
    "all-at-once": Regime(scaled=True, clip=0.05, scheduled=True),
}


def train(
    tiny: Tiny,
    method: Method,
    steps: int,
    regime: Regime = Regime(),
    prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Witness:
    """Train a tiny network; every step is checked as it happens."""
    network, head = tiny.make()
    network = prepare(network)
    optimizer = method.optimizer(network, lr=LR, head=head, **regime.options)
    witness = Witness(network, method, optimizer, regime.options, head)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 ** (k // 2 if regime.scheduled else 0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=regime.scaled)
    parameters = [p for p in network.parameters() if p.requires_grad]
    for step in range(steps):
        loss = loss_of(network(tiny.batch(step).to(next(network.parameters()).dtype)), step)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if regime.clip is not None:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, regime.clip)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        assert torch.isfinite(loss)
    assert witness.steps == steps
    return witness


def state_of(network: nn.Module) -> dict[str, np.ndarray]:
    """All parameters and buffers as bits."""
    return {name: bits(tensor) for name, tensor in network.state_dict().items()}


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks are bit-identical."""
    a, b = state_of(first), state_of(second)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def with_settings(method: Method, **changes: Any) -> Method:
    """A method with other settings."""
    return dataclasses.replace(method, **changes)
