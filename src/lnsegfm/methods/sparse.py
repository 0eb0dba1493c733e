"""Base of the methods that update a few entries of every kernel in a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method, setting
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lnsegfm.methods.entry_selection import Selection
    from lnsegfm.methods.entry_update import Update
    from lnsegfm.networks.parameter_roles import NetworkParameter


@dataclass(frozen=True, kw_only=True)
class Sparse(Method):
    """``gamma`` entries of every kernel are updated in a step; what else the method trains is updated densely.

    A kernel is one output filter of a convolution, a transposed convolution or a linear layer.

    Args:
        gamma: Entries that are updated per kernel and step.
    """

    gamma: int = setting(1, "entries that are updated per kernel and step")

    def __post_init__(self) -> None:
        if not isinstance(self.gamma, int) or self.gamma < 1:
            raise ConfigError(f"gamma {self.gamma}: 1, 2, 3, ... entries of a kernel are updated. Use gamma >= 1.")

    def per_step(self, parameter: NetworkParameter) -> int:
        """Entries of a tensor that one step can change: gamma per kernel for weights, all elsewhere."""
        if parameter.role is not Role.WEIGHT:
            return parameter.tensor.numel()
        kernels, fan_in = parameter.layout.rows(parameter.tensor).shape
        return kernels * min(self.gamma, fan_in)

    def rules(self, lr: float, momentum: float) -> tuple[Selection, Update]:
        """What selects entries and what updates them, for a training that starts with these rates."""
        raise NotImplementedError

    def _optimizer(
        self, trained: Sequence[NetworkParameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> Optimizer:
        from lnsegfm.methods.sparse_sgd import SparseSGD

        selection, update = self.rules(lr, momentum)
        return SparseSGD(
            dense=[parameter.tensor for parameter in trained if parameter.role is not Role.WEIGHT],
            sparse=[(parameter.tensor, parameter.layout) for parameter in trained if parameter.role is Role.WEIGHT],
            selection=selection,
            update=update,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
            weight_decay=weight_decay,
        )


@dataclass(frozen=True, kw_only=True)
class FixedSparse(Sparse):
    """The entries are selected once and stay the same; they and the head follow SGD without decay."""

    def _optimizer(
        self,
        trained: Sequence[NetworkParameter],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,  # noqa: ARG002
    ) -> Optimizer:
        return super()._optimizer(trained, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=0.0)


def gradient_step(weight_lr: float | None, lr: float, momentum: float) -> Update:
    """The paper's update of the selected entries.

    Args:
        weight_lr: Its learning rate, which becomes a factor on ``lr``, so that it follows the schedule; None for
            ``lr / (1 - momentum)``.
        lr: Learning rate of the dense tensors.
        momentum: Momentum of the dense tensors.
    """
    from lnsegfm.methods.entry_update import GradientStep

    return GradientStep((lr / (1 - momentum) if weight_lr is None else weight_lr) / lr)
