"""Gradient-based parameter selection (GPS): the entries are selected once, before training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lnsegfm.errors import ConfigError
from lnsegfm.methods.method import setting
from lnsegfm.methods.sparse import FixedSparse
from lnsegfm.methods.training_defaults import TrainingDefaults
from lnsegfm.networks.role import Role

if TYPE_CHECKING:
    from lnsegfm.methods.entry_selection import Selection
    from lnsegfm.methods.entry_update import Update


@dataclass(frozen=True, kw_only=True)
class GPS(FixedSparse):
    """The ``gamma`` entries of each kernel with the largest summed |gradient| train, and the head; the rest is frozen.

    The first ``passes`` steps update nothing and only sum gradients, so that entries are selected over patches of all
    shots. Selected entries and head then follow SGD without decay. (The paper sums over one pass through the data with
    a contrastive loss and trains with Adam; here loss and optimizer are those of the other methods.)

    Args:
        passes: Steps over which gradients are summed before anything is updated.
    """

    name = "gps"
    summary = "the gamma steepest entries of each kernel, selected once before training, and the head train"
    source = "Zhang et al., CVPR 2024, arXiv 2312.10136"
    trains = frozenset({Role.HEAD, Role.WEIGHT})
    training = TrainingDefaults(lr=3e-3)

    passes: int = setting(10, "steps over which gradients are summed before anything is updated")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.passes < 1:
            raise ConfigError(f"passes {self.passes}: entries are selected by at least one gradient. Use passes >= 1.")

    def rules(self, lr: float, momentum: float) -> tuple[Selection, Update]:  # noqa: ARG002
        """The entries that are steepest over all passes, updated by SGD."""
        from lnsegfm.methods.entry_selection import FixedOnce, Steepest
        from lnsegfm.methods.entry_update import FixedEntriesSGD

        return FixedOnce(Steepest(self.gamma), self.passes), FixedEntriesSGD()
