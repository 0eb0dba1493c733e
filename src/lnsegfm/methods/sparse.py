"""What methods have in common that move a few entries of every kernel: the budget, and what is dense beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method, setting
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lnsegfm.networks.parameter_roles import NetworkParameter

STEEPEST, RANDOM = "steepest", "random"


@dataclass(frozen=True, kw_only=True)
class Sparse(Method):
    """``gamma`` entries of every kernel move in a step; what else the method trains moves densely.

    A kernel is one output filter of a convolution, a transposed convolution or a linear layer.

    Args:
        gamma: Entries that move per kernel and step.
    """

    gamma: int = setting(1, "entries that move per kernel and step")

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, int) or self.gamma < 1:
            raise ConfigError(f"gamma {self.gamma}: a kernel moves in 1, 2, 3, ... entries. Use gamma >= 1.")

    def per_step(self, parameter: NetworkParameter) -> int:
        """Entries of a tensor that one step can change: gamma a kernel for weights, all of them elsewhere."""
        if parameter.role is not Role.WEIGHT:
            return parameter.tensor.numel()
        kernels, fan_in = parameter.layout.rows(parameter.tensor).shape
        return kernels * min(self.gamma, fan_in)

    def rule(self, lr: float, momentum: float) -> dict[str, Any]:
        """How the selected entries move: arguments of `lnsegfm.methods.sparse_sgd.SparseSGD`."""
        raise NotImplementedError

    def _optimizer(
        self, trained: Sequence[NetworkParameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> Optimizer:
        from lnsegfm.methods.sparse_sgd import SparseSGD

        return SparseSGD(
            dense=[parameter.tensor for parameter in trained if parameter.role is not Role.WEIGHT],
            sparse=[(parameter.tensor, parameter.layout) for parameter in trained if parameter.role is Role.WEIGHT],
            gamma=self.gamma,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
            **self.rule(lr, momentum),
        )


def require_rate(name: str, rate: float | None) -> None:
    """Refuse a step that cannot be.

    Raises:
        ConfigError: It is not above 0, or not finite.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ConfigError(f"{name} {rate}: a step has a finite length above 0. Use for example 1.")


def require_seed(seed: int) -> None:
    """Refuse a seed that cannot be.

    Raises:
        ConfigError: It is negative.
    """
    if seed < 0:
        raise ConfigError(f"seed {seed}: seeds are counted from 0. Use seed >= 0.")
