"""What the laws run over: every method, on networks of `tests.networks.tiny`, in the regimes of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lnsegfm.methods.bounded_dgst import BoundedDGST
from lnsegfm.methods.dgst import DGST
from lnsegfm.methods.full import Full
from lnsegfm.methods.gps import GPS
from lnsegfm.methods.l2_sp import L2SP
from lnsegfm.methods.lora import LoRA
from lnsegfm.methods.method import Method
from lnsegfm.methods.random_dynamic import RandomDynamic
from lnsegfm.methods.random_static import RandomStatic
from lnsegfm.methods.spatial_adapter_method import SpatialAdapter
from lnsegfm.methods.ssf import SSF
from lnsegfm.methods.table import METHODS
from lnsegfm.networks.parameter_roles import NetworkParameter, parameters_of
from tests.methods.undone import is_undone, undone_layers
from tests.methods.witness import LR, Witness, bits, is_meant
from tests.networks.tiny import TINY, Tiny, loss_of

WEIGHT_LR = 2.0**-4
LARGER_THAN_ANY_FAN_IN = 10_000
PASSES = 2

ALL_METHODS: dict[str, Method] = {name: cls() for name, cls in METHODS.items() if cls.learns and cls is not DGST}
ALL_METHODS |= {
    f"dgst-{mode}-{gamma}": DGST(gamma=gamma, mode=mode, weight_lr=WEIGHT_LR if mode == "paper" else None)
    for mode in ("paper", "momentum", "masked-gradient")
    for gamma in (1, 2, LARGER_THAN_ANY_FAN_IN)
}
ALL_METHODS |= {
    "full-adamw": Full(rule="adamw"),
    "l2-sp": L2SP(alpha=2.0**-3, beta=2.0**-7),
    "ssf-sgd": SSF(rule="sgd"),
    "lora-sgd": LoRA(rule="sgd", rank=1, alpha=1.0),
    "spatial-adapter-sgd": SpatialAdapter(rule="sgd", width=2),
    "gps": GPS(gamma=2, passes=PASSES),
    "random-static": RandomStatic(gamma=2),
    "random-dynamic": RandomDynamic(gamma=2, weight_lr=WEIGHT_LR),
    "dgst-bounded": BoundedDGST(gamma=2, bound=2.0**-3, weight_lr=1.0),
    "dgst-bounded-all": BoundedDGST(gamma=0, bound=2.0**-6, weight_lr=2.0**-2),
    "dgst-bounded-random": BoundedDGST(gamma=2, bound=2.0**-3, weight_lr=1.0, select="random"),
    "dgst-bounded-memory": BoundedDGST(gamma=1, bound=2.0**-3, weight_lr=1.0, memory=0.5),
    "dgst-bounded-no-norms": BoundedDGST(gamma=1, weight_lr=8.0, norms=False),
}

ADDING = ("ssf", "lora", "dora", "spatial-adapter")
"""Methods that add something to the network."""

REFUSED: dict[str, frozenset[str]] = {
    "decoder": frozenset({"sequence", "grouped", "transformer", "batch-norm", "tied"}),
    "spatial-adapter": frozenset({"sequence"}),
}
"""Networks that a method refuses: those without a card have no decoder, and an adapter of features needs a 3D head."""

PAIRS = [
    (network, name)
    for network in TINY
    for name, method in ALL_METHODS.items()
    if network not in REFUSED.get(method.name, ())
]


def bearer(method: str, network: str = "grouped") -> Tiny:
    """A network for a law that looks at one: this one, or nnU-Net's where the method refuses it."""
    return TINY["plain-unet" if network in REFUSED.get(ALL_METHODS[method].name, ()) else network]


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
GARBLED = 1e6
"""A length of all gradients that no network here has by itself."""


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
        with torch.autocast("cpu", torch.bfloat16, enabled=regime.bfloat16):
            loss = loss_of(network(tiny.batch(step).to(next(network.parameters()).dtype)), step)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        if regime.clip is not None:
            scaler.unscale_(optimizer)
            length = nn.utils.clip_grad_norm_(parameters, regime.clip)
            witness.garbled |= regime.bfloat16 and not length < GARBLED
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        assert regime.bfloat16 or torch.isfinite(loss)
    assert witness.steps == steps
    return witness


def assert_all_moved(witness: Witness, tiny: Tiny) -> None:
    """What trained has moved; a shift that a norm undoes has a gradient of rounding errors only and may stay."""
    network = witness.network
    dtype = next(network.parameters()).dtype
    layers = undone_layers(network, lambda: network(tiny.batch(0).to(dtype)))
    trained = {parameter.name for parameter in witness.trained}
    undone = {parameter.name for parameter in witness.trained if is_undone(parameter, layers)}
    assert witness.moved <= trained
    assert witness.garbled or trained - undone <= witness.moved


def outputs(network: nn.Module, x: Tensor) -> Tensor:
    """Everything that a network gives, deeply supervised outputs included, in a row."""
    given: Tensor | Sequence[Tensor] = network(x)
    return torch.cat([given.flatten()] if isinstance(given, Tensor) else [one.flatten() for one in given])


def adapted(tiny: Tiny, method: str, *, dtype: torch.dtype = torch.float64) -> tuple[Any, list[NetworkParameter]]:
    """An attached network whose trained tensors are a little off their start, and those tensors."""
    network, head = tiny.make()
    network.to(dtype)
    ALL_METHODS[method].optimizer(network, lr=LR, head=head)
    trained = [parameter for parameter in parameters_of(network, head) if is_meant(ALL_METHODS[method], parameter)]
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in trained:  # else a factor that is zero at the start would hide the other
            parameter.tensor.add_(0.1 * torch.randn_like(parameter.tensor))
    return network, trained


def state_of(network: nn.Module) -> dict[str, np.ndarray]:
    """All parameters and buffers as bits."""
    return {name: bits(tensor) for name, tensor in network.state_dict().items()}


def same_state(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks are bit-identical."""
    a, b = state_of(first), state_of(second)
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)
