"""Control for DGST's selection: as many entries, drawn at random at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.methods.method import require_rate, require_seed, setting
from lnsegfm.methods.sparse import Sparse, gradient_step
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from lnsegfm.methods.entry_selection import Selection
    from lnsegfm.methods.entry_update import Update


@dataclass(frozen=True, kw_only=True)
class RandomDynamic(Sparse):
    """DGST in mode ``paper``, with entries drawn at random instead of the steepest.

    Args:
        weight_lr: Learning rate of the selected entries; ``lr / (1 - momentum)`` unless given.
        seed: Of the entries.
    """

    name = "random-dynamic"
    summary = (
        "DGST's control: gamma random entries of each kernel, drawn anew each step, train; norms, biases and head too"
    )
    source = "an ablation of Luo et al., MICCAI 2025, arXiv 2503.00748"
    trains = frozenset({Role.HEAD, Role.WEIGHT, Role.BIAS, Role.NORM_WEIGHT, Role.NORM_BIAS})

    weight_lr: float | None = setting(None, "learning rate of the selected entries; lr / (1 - momentum) unless given")
    seed: int = setting(0, "of the entries")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_rate("weight_lr", self.weight_lr)
        require_seed(self.seed)

    def rules(self, lr: float, momentum: float) -> tuple[Selection, Update]:
        """Random entries, updated as in DGST's mode ``paper``."""
        from lnsegfm.methods.entry_selection import RandomEntries

        return RandomEntries(self.gamma, self.seed), gradient_step(self.weight_lr, lr, momentum)
