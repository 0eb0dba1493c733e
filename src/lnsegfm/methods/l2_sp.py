"""Full fine-tuning with a pull to the initial weights (L2-SP)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method, setting
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lnsegfm.networks.parameter_roles import NetworkParameter


@dataclass(frozen=True, kw_only=True)
class L2SP(Method):
    """Everything trains; alpha / 2 |w - w0|^2 is added to the loss, with w0 the weights at the start.

    The head, which may be new, is pulled to zero by beta / 2 |w|^2 instead. No other decay.

    Args:
        alpha: Strength of the pull to the initial weights.
        beta: L2 decay of the head.
    """

    name = "l2-sp"
    summary = "every parameter trains and is pulled to the base"
    source = "Li et al., ICML 2018, arXiv 1802.01483"
    trains = frozenset(Role)
    training = TrainingDefaults(lr=1e-3)

    alpha: float = setting(0.1, "strength of the pull to the base")
    beta: float = setting(0.01, "decay of the head")

    def __post_init__(self) -> None:
        for name in ("alpha", "beta"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} {getattr(self, name)}: it must be 0 or above. Use for example 0.1.")

    def _optimizer(
        self,
        trained: Sequence[NetworkParameter],
        *,
        lr: float,
        momentum: float,
        nesterov: bool,
        weight_decay: float,  # noqa: ARG002
    ) -> Optimizer:
        from lnsegfm.methods.anchored_sgd import AnchoredSGD

        return AnchoredSGD(
            pulled=[parameter.tensor for parameter in trained if parameter.role is not Role.HEAD],
            decayed=[parameter.tensor for parameter in trained if parameter.role is Role.HEAD],
            alpha=self.alpha,
            beta=self.beta,
            lr=lr,
            momentum=momentum,
            nesterov=nesterov,
        )
