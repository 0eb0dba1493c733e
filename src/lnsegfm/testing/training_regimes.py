"""A tiny network trained under what surrounds a step: momentum, schedules, scaling, clipping, half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lnsegfm.methods.method import Method
from lnsegfm.testing.law import require
from lnsegfm.testing.step_witness import LR, StepWitness
from lnsegfm.testing.tiny_networks import Tiny, loss_of
from lnsegfm.testing.undone_shifts import is_undone, undone_layers

GARBLED = 1e6
"""A length of all gradients that no network here has by itself."""


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
        bfloat16: Forward pass and loss run under autocast to bfloat16.
    """

    momentum: float = 0.99
    nesterov: bool = True
    weight_decay: float = 3e-5
    scaled: bool = False
    clip: float | None = None
    scheduled: bool = False
    bfloat16: bool = False

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
PRECISIONS: dict[str, Regime] = {"float32": Regime(), "bfloat16": Regime(bfloat16=True, clip=12.0)}
"""On a CPU torch's 3D convolutions in bfloat16 now and then give a gradient of 1e32 on maps of a few voxels. What a
step does with the gradient that it sees is checked as ever; that gradients are clipped as nnU-Net clips them keeps one
such number from being the end of the run, though it may bring all others to zero. Losses need not be finite there."""


def train(
    tiny: Tiny,
    method: Method,
    steps: int,
    regime: Regime = PRECISIONS["float32"],
    prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
    witness: type[StepWitness] = StepWitness,
) -> StepWitness:
    """Train a tiny network; every step is checked as it happens.

    Raises:
        AssertionError: A step broke the method's word, or a loss was not finite.
    """
    network, head = tiny.make()
    network = prepare(network)
    optimizer = method.optimizer(network, lr=LR, head=head, **regime.options)
    watched = witness(network, method, optimizer, regime.options, head)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 0.5 ** (k // 2 if regime.scheduled else 0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, enabled=regime.scaled)
    parameters = [p for p in network.parameters() if p.requires_grad]
    for step in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=regime.bfloat16):
            loss = loss_of(network(tiny.batch(step).to(next(network.parameters()).dtype)), step)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if regime.clip is not None:
            scaler.unscale_(optimizer)
            length = nn.utils.clip_grad_norm_(parameters, regime.clip)
            watched.garbled |= regime.bfloat16 and not bool(length < GARBLED)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        require(regime.bfloat16 or torch.isfinite(loss), f"method {method.name}: loss {loss} at step {step}")
    require(watched.steps == steps, f"method {method.name}: {watched.steps} of {steps} steps were taken")
    return watched


def require_all_moved(watched: StepWitness, tiny: Tiny) -> None:
    """Raise unless all that trains has moved and nothing else.

    A shift that a norm undoes has a gradient of rounding errors only and may stay.
    """
    network, name = watched.network, watched.method.name
    dtype = next(network.parameters()).dtype
    layers = undone_layers(network, lambda: network(tiny.batch(0).to(dtype)))
    trained = {parameter.name for parameter in watched.trained}
    undone = {parameter.name for parameter in watched.trained if is_undone(parameter, layers)}
    require(watched.moved <= trained, f"method {name}: {sorted(watched.moved - trained)} moved and do not train")
    still = trained - undone - watched.moved
    require(watched.garbled or not still, f"method {name}: {sorted(still)} train and never moved")


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    """Everything that a network gives, deeply supervised outputs included, in a row."""
    given: Tensor | Sequence[Tensor] = network(x)
    return torch.cat([given.flatten()] if isinstance(given, Tensor) else [one.flatten() for one in given])
