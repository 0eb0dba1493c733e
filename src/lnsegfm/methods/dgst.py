"""Dynamic gradient sparsification training (DGST).

At every optimizer step only the ``gamma`` steepest entries of each kernel are updated, so most of the foundation model
stays as it was. The entries are selected anew at each step; head, norms and biases are updated densely.

Luo et al., MICCAI 2025, https://arxiv.org/abs/2503.00748.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import require_rate, setting
from lnsegfm.methods.sparse import Sparse, gradient_step
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from lnsegfm.methods.entry_selection import Selection
    from lnsegfm.methods.entry_update import Update
    from lnsegfm.networks.parameter_roles import NetworkParameter


class Mode(StrEnum):
    """How a selected entry is updated, and whether others are."""

    PAPER = "paper"
    """w -= weight_lr * g on the selected entries: no decay, no momentum, no state."""
    MOMENTUM = "momentum"
    """nnU-Net's SGD step (momentum and decay kept for every entry), applied to the selected entries alone."""
    MASKED_GRADIENT = "masked-gradient"
    """What the paper's release meant to do: the gradient is masked, then nnU-Net's SGD updates **every** entry that has
    decay or momentum. Other entries do not stay as they were; the mode is here for comparison."""


@dataclass(frozen=True, kw_only=True)
class DGST(Sparse):
    """Sparse updates for weights, dense updates for head, norms and biases.

    Entries are ranked by the magnitude of their gradient as the optimizer sees it: after unscaling and clipping, after
    DDP's mean.

    Args:
        mode: See `Mode`; ``paper`` and ``momentum`` leave every other entry bit-identical.
        weight_lr: Learning rate of the selected entries in mode ``paper``. Momentum m lengthens a dense step by
            1 / (1 - m), and an update without momentum is not lengthened; so ``lr / (1 - momentum)`` unless given. It
            follows the schedule of ``lr``. The other modes use ``lr``.
    """

    name = "dgst"
    summary = "the gamma steepest entries of each kernel, selected anew each step, train; norms, biases and head too"
    source = "Luo et al., MICCAI 2025, arXiv 2503.00748"
    trains = frozenset({Role.HEAD, Role.WEIGHT, Role.BIAS, Role.NORM_WEIGHT, Role.NORM_BIAS})
    trainer = "DGST"

    mode: str = setting(Mode.PAPER.value, "paper, momentum or masked-gradient")
    weight_lr: float | None = setting(None, "learning rate of the selected entries; lr / (1 - momentum) unless given")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in set(Mode):
            raise ConfigError(f"mode {self.mode}: method dgst knows {', '.join(Mode)}.")
        require_rate("weight_lr", self.weight_lr)
        if self.weight_lr is not None and self.mode != Mode.PAPER:
            raise ConfigError(f"weight_lr {self.weight_lr}: mode {self.mode} uses lr. Leave weight_lr out.")

    def per_step(self, parameter: NetworkParameter) -> int:
        """Entries of a tensor that one step can change: in mode ``masked-gradient`` all of them."""
        return parameter.tensor.numel() if self.mode == Mode.MASKED_GRADIENT else super().per_step(parameter)

    def rules(self, lr: float, momentum: float) -> tuple[Selection, Update]:
        """The steepest entries, updated as the mode says."""
        from lnsegfm.methods.entry_selection import Steepest
        from lnsegfm.methods.entry_update import MaskedGradient, MomentumStep

        updates = {Mode.MOMENTUM: MomentumStep(), Mode.MASKED_GRADIENT: MaskedGradient()}
        return Steepest(self.gamma), updates.get(Mode(self.mode)) or gradient_step(self.weight_lr, lr, momentum)
