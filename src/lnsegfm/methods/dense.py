"""Base of the methods that update whole tensors: the rule by which they are updated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method, setting

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lnsegfm.networks.parameter_roles import NetworkParameter

RULES = ("sgd", "adamw")


@dataclass(frozen=True, kw_only=True)
class Dense(Method):
    """Every entry of the trained tensors is updated.

    Args:
        rule: ``sgd`` is nnU-Net's; ``adamw`` is Loshchilov and Hutter's, ICLR 2019.
    """

    rule: str = setting("sgd", "sgd (nnU-Net's) or adamw (momentum is not used)")

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"rule {self.rule}: method {self.name} knows {' and '.join(RULES)}.")

    def _optimizer(
        self, trained: Sequence[NetworkParameter], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> Optimizer:
        from torch.optim import SGD, AdamW

        parameters = [parameter.tensor for parameter in trained]
        if self.rule == "adamw":
            return AdamW(parameters, lr=lr, weight_decay=weight_decay)
        return SGD(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
