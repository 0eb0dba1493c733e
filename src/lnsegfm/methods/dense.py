"""Methods that move whole tensors: everything, the head, the biases, or the norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import Method, setting
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from lnsegfm.networks.parts import Part


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """Everything moves.

    Args:
        rule: ``sgd`` is nnU-Net's; ``adamw`` leaves the plateau at zero that small foregrounds hold SGD on.
    """

    name = "full"
    summary = "every parameter moves"
    source = "Isensee et al., Nat. Methods 2021 (nnU-Net's SGD); Loshchilov and Hutter, ICLR 2019 (adamw)"
    trains = frozenset(Role)

    rule: str = setting("sgd", "sgd (nnU-Net's) or adamw (momentum is not used)")

    def __post_init__(self) -> None:
        if self.rule not in ("sgd", "adamw"):
            raise ConfigError(f"rule {self.rule}: method full knows sgd and adamw.")

    def _optimizer(
        self, trained: Sequence[Part], *, lr: float, momentum: float, nesterov: bool, weight_decay: float
    ) -> Optimizer:
        if self.rule == "sgd":
            return super()._optimizer(trained, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)
        from torch.optim import AdamW

        return AdamW([part.parameter for part in trained], lr=lr, weight_decay=weight_decay)


@dataclass(frozen=True, kw_only=True)
class Head(Method):
    """Only the layers whose output channels are the labels move."""

    name = "head"
    summary = "the segmentation head moves"
    source = "linear probing, as in Alain and Bengio, ICLR 2017 (workshop)"
    trains = frozenset({Role.HEAD})


@dataclass(frozen=True, kw_only=True)
class Bias(Method):
    """Every bias moves, those of norms included, and the head."""

    name = "bias"
    summary = "every bias and the head move (BitFit)"
    source = "Ben Zaken et al., ACL 2022, arXiv 2106.10199"
    trains = frozenset({Role.HEAD, Role.BIAS, Role.NORM_BIAS})


@dataclass(frozen=True, kw_only=True)
class Affine(Method):
    """Scale and shift of every normalisation move, and the head."""

    name = "affine"
    summary = "scale and shift of every norm and the head move (Affine-IN)"
    source = "Luo et al., MICCAI 2025, arXiv 2503.00748 (Affine-IN); Frankle et al., ICLR 2021, arXiv 2003.00152"
    trains = frozenset({Role.HEAD, Role.NORM_WEIGHT, Role.NORM_BIAS})
