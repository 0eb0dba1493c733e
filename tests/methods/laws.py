"""What the laws run over: every method, on networks of `lnsegfm.testing.tiny_networks`, in the regimes of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

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
from lnsegfm.testing.step_witness import LR, StepWitness
from lnsegfm.testing.tiny_networks import TINY, Tiny
from lnsegfm.testing.training_regimes import Regime
from lnsegfm.testing.training_regimes import train as train_watched
from tests.methods.witness import MOVES, Witness, is_meant

WEIGHT_LR = 2.0**-4
LARGER_THAN_ANY_FAN_IN = 10_000
PASSES = 2

PLAIN = Regime()

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


def train(
    tiny: Tiny,
    method: Method,
    steps: int,
    regime: Regime = PLAIN,
    prepare: Callable[[nn.Module], nn.Module] = lambda network: network,
) -> Any:
    """Train a tiny network; every step is checked as it happens, of a method whose rule is written down by its rule."""
    return train_watched(tiny, method, steps, regime, prepare, Witness if method.name in MOVES else StepWitness)


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
