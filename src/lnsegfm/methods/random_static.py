"""Control for GPS's selection: as many entries, drawn at random once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.methods.method import require_seed, setting
from lnsegfm.methods.sparse import FixedSparse
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from lnsegfm.methods.entry_selection import Selection
    from lnsegfm.methods.entry_update import Update


@dataclass(frozen=True, kw_only=True)
class RandomStatic(FixedSparse):
    """GPS with entries drawn at random before training.

    Args:
        seed: Of the entries.
    """

    name = "random-static"
    summary = "GPS's control: gamma random entries of each kernel, drawn once, and the head train"
    source = "a control of Zhang et al., CVPR 2024, arXiv 2312.10136"
    trains = frozenset({Role.HEAD, Role.WEIGHT})
    training = TrainingDefaults(lr=3e-3)

    seed: int = setting(0, "of the entries")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_seed(self.seed)

    def rules(self, lr: float, momentum: float) -> tuple[Selection, Update]:  # noqa: ARG002
        """Random entries that stay the same, updated by SGD."""
        from lnsegfm.methods.entry_selection import FixedOnce, RandomEntries
        from lnsegfm.methods.entry_update import FixedEntriesSGD

        return FixedOnce(RandomEntries(self.gamma, self.seed)), FixedEntriesSGD()
